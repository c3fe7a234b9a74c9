"""A model card: what a checkpoint was trained on, how, how well, and what it is not good for.

Knows what a checkpoint says of itself; knows no tensor. It is written as `README.md` beside the
weights, which is where Hugging Face shows it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..corpus.medians import MediansSet
from ..corpus.splits import DONOR
from ..corpus.vocabularies import Vocabulary
from ..platform.configuration import flat

if TYPE_CHECKING:
    from .checkpoints import CheckpointInfo

_HEAD = """---
library_name: transformers
pipeline_tag: fill-mask
tags: [cytolake, single-cell, {family}]
---
"""
_SETTINGS = ("model", "objective", "training", "optimizer", "engine")
_VALIDATION = "validation"


def model_card(
    info: "CheckpointInfo",
    *,
    vocabulary: Vocabulary,
    medians: MediansSet,
    n_parameters: int,
    reports: Sequence[Mapping[str, float]] = (),
) -> str:
    """A checkpoint's card, as Markdown.

    Args:
        info: where the model comes from.
        vocabulary: the model's.
        medians: the model's.
        n_parameters: of the model, each once.
        reports: what the run has said so far, oldest first: see `loop.Metrics`; values whose name
            begins with `validation` are shown as such, from the last report that has any.
    """
    name = str(info.recipe.get("name", info.family))
    parts = [
        _HEAD.format(family=info.family),
        f"# {name}, step {info.step:,}\n",
        f"A {info.family} model of {n_parameters:,} parameters, trained by cytolake on "
        f"{info.n_cells:,} cells; {info.epoch:.3g} passes over them so far.\n",
        "## Data\n",
        _table(_data(info)),
        "## Genes\n",
        _table(
            [
                ("tokens", f"{vocabulary.size:,}, of which {len(vocabulary.special)} special"),
                ("most tokens of a cell", f"{info.length:,}"),
                ("vocabulary digest", info.vocabulary_digest),
                ("genes with a median", f"{len(medians.gene_ids):,}"),
                ("medians digest", info.medians_digest),
                ("medians from", _origin_of(medians)),
            ]
        ),
        "## Scores so far\n",
        _scores(info, reports),
        "## Settings\n",
        _table(_settings(info)),
        "The recipe, whole, is in `cytolake.json`.\n",
        "## Versions\n",
        _table(sorted(info.versions.items())),
        "## Loading it\n",
        _LOADING.format(rule=_token_rule(vocabulary, info.length)),
        "## Limits\n",
        _limits(info, reports),
    ]
    return "\n".join(parts)


_LOADING = """```python
from transformers import BertForMaskedLM
model = BertForMaskedLM.from_pretrained(".")  # this folder; stock transformers, nothing of ours
states = model.bert(input_ids=tokens).last_hidden_state  # tokens: those of `vocabulary.json`
```

{rule} cytolake does it for a file of raw counts:

    cytolake embed cells.h5ad --model . -o cells-embedded.h5ad
"""


def _token_rule(vocabulary: Vocabulary, length: int) -> str:
    """How a cell becomes tokens, in words that suffice to do it again."""
    special = vocabulary.special
    said = [
        "Tokens are a cell's genes, the most telling first: count / median of `medians.json`, "
        "descending, ties by ascending token; genes without a token or a median are left out.",
        f"Token {len(special)} is the first of `gene_ids` in `vocabulary.json`.",
    ]
    if vocabulary.mapping:
        said.append(
            f"Before that, {len(vocabulary.mapping):,} ids are read as others by its `mapping`, "
            "and the counts of ids that meet are summed."
        )
    around = 0
    if {"<cls>", "<eos>"} <= set(special):
        around = 2
        said.append(
            f"`<cls>` ({special.index('<cls>')}) stands before the genes of a cell and `<eos>` "
            f"({special.index('<eos>')}) after them."
        )
    said.append(f"At most {length - around:,} genes are kept.")
    return " ".join(said)


def _data(info: "CheckpointInfo") -> list[tuple[str, str]]:
    split = info.recipe.get("split")
    rows = [
        ("corpus", info.corpus_uuid),
        ("snapshot", str(info.snapshot)),
        ("query", f"`{info.where}`" if info.where else "all primary cells"),
        ("part of the split", info.part or "no split: nothing was held out"),
        ("split", ", ".join(f"{k} = {v}" for k, v in flat(split).items()) if split else "none"),
        ("cells", f"{info.n_cells:,}"),
        ("selection digest", info.selection_digest),
    ]
    if origin := info.origin:
        rows.append(("begun with", _begun_with(origin)))
    return rows


def _begun_with(origin: Mapping[str, Any]) -> str:
    if not origin.get("corpus_uuid"):
        return f"weights of {origin.get('checkpoint')}; what they were trained on is not on record"
    moments = "weights and moments" if origin.get("moments") else "weights"
    return (
        f"{moments} of step {origin.get('step')} of run {origin.get('run_id') or 'unknown'}, "
        f"trained on snapshot {origin.get('snapshot')} of corpus {origin.get('corpus_uuid')}"
    )


def _origin_of(medians: MediansSet) -> str:
    said = [f"{key} {value}" for key, value in medians.origin.items() if value not in (None, [])]
    return ", ".join(said) or "not recorded"


def _scores(info: "CheckpointInfo", reports: Sequence[Mapping[str, float]]) -> str:
    past = [report for report in reports if report.get("step", 0) <= info.step]
    if not past:
        return "None: no report was made before this checkpoint.\n"
    last = past[-1]
    rows = [
        (
            "training, cross-entropy at hidden genes",
            f"{last['loss']:.4f} nats, mean since the report before; step {int(last['step']):,}",
        ),
        ("training, chosen genes guessed right", f"{last['accuracy']:.2%}"),
    ]
    if "mask_accuracy" in last:  # reports of older versions have none
        share = f"{last['mask_accuracy']:.2%}"
        rows.append(("training, genes under `<mask>` guessed right", share))
    validated = [report for report in past if any(key.startswith(_VALIDATION) for key in report)]
    if validated:
        step = int(validated[-1]["step"])
        rows += [
            (key.replace("_", " "), f"{value:.4f}, step {step:,}")
            for key, value in validated[-1].items()
            if key.startswith(_VALIDATION)
        ]
    return _table(rows)


def _settings(info: "CheckpointInfo") -> list[tuple[str, str]]:
    chosen = flat({part: info.recipe[part] for part in _SETTINGS if part in info.recipe})
    if chosen.get("training.precision") == "auto" and info.precision:
        chosen["training.precision"] = f"auto, which came to {info.precision}"
    return [(key, str(value)) for key, value in chosen.items() if value is not None]


def _limits(info: "CheckpointInfo", reports: Sequence[Mapping[str, float]]) -> str:
    lines = [
        "Training scores are of cells that the model learns from: they say nothing of other "
        "donors, laboratories or tissues. `cytolake evaluate masked` asks it about held-out cells, "
        "beside baselines.",
        "Genes outside the vocabulary are not seen at all; of a gene that the cells were not "
        "measured for, nothing was learnt.",
        "Ranks hide how strongly a gene is expressed, and a cell with more than "
        f"{info.length:,} tokens is cut off.",
        "It is no medical device, and a cell state is no evidence of cause.",
        "Whether weights may be passed on depends on the consent and licences of the cells above: "
        "cytolake does not know them.",
    ]
    if info.part is None:
        lines.insert(
            1,
            "No cell of the query was held out, so no score on this corpus is of "
            "cells that the model has not seen.",
        )
    if info.split is not None and not info.split.surely_keeps(DONOR):
        lines.insert(
            1,
            "Its split keeps no donor whole for sure: held-out cells may be of donors that it has "
            "learnt from.",
        )
    if not any(key.startswith(_VALIDATION) for report in reports for key in report):
        lines.insert(1, "It was not validated while it was trained.")
    return "".join(f"- {line}\n" for line in lines)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = [(key, value.replace("|", "\\|").replace("\n", " ")) for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in cells), ""])
