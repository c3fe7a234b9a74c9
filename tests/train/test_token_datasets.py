"""Token data sets: the official tokenizer's tokens, in the layout that `datasets` reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, NoCellsError, QueryError, RecipeError
from cytolake.platform.settings import Settings, load_settings
from cytolake.tests.corpus.committed import batch_of, commit, real_corpus, resources
from cytolake.train import token_datasets
from cytolake.train.token_datasets import export_tokens

EPS = float(np.finfo(np.float32).eps)
"""The official keys are float32: what differs by less is a tie there."""

GENES = [f"ENSG{i:011d}" for i in range(12)]
SPECIAL = {"v1": ("<pad>", "<mask>"), "v2": ("<pad>", "<mask>", "<cls>", "<eos>")}
LABELS = {"v1": "gc30M", "v2": "gc95M"}
LENGTHS = {"v1": 2048, "v2": 4096}


def write_tsv(path: Path, header: str, rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(f"{first}\t{second}" for first, second in rows.items())]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Small dictionaries in place of the official ones: ten genes, one id read as another's."""
    medians = {gene: 0.5 + i % 4 for i, gene in enumerate(GENES[:10])}
    mapping = {gene: gene for gene in GENES} | {GENES[10]: GENES[3]}
    files: dict[str, Path] = {}
    for version, label in LABELS.items():
        names = [*SPECIAL[version], *GENES[:10]]
        tables = {
            "tokens": ("token_dictionary", {name: i for i, name in enumerate(names)}),
            "mapping": ("ensembl_mapping_dict", mapping),
            "medians": ("gene_median_dictionary", medians),
        }
        for part, (name, rows) in tables.items():
            path = tmp_path / version / f"{name}_{label}.tsv"
            write_tsv(path, "key\tvalue", rows)
            files[f"geneformer-{version}-{part}"] = path
    monkeypatch.setattr("cytolake.train.vocabularies.find", lambda name, _: files[name])
    return {"medians": medians, "mapping": mapping}


def random_counts(n_cells: int) -> Any:
    draw = np.random.default_rng(n_cells)
    counts = draw.poisson(0.9, (n_cells, len(GENES)))
    counts[:, 11] += 1  # outside the vocabulary, so that no cell is without a count
    counts[3, :11] = 0
    return counts


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = Corpus.create(tmp_path / "corpus")
    for name, n_cells in (("a", 9), ("b", 14)):
        barcodes = [f"{name}{i}" for i in range(n_cells)]
        types = [None if i == 1 else f"T{i % 3}" for i in range(n_cells)]
        commit(corpus, name, batch_of(random_counts(n_cells), GENES, barcodes, cell_type=types))
    return Corpus.open(corpus.uri)


def official_rules(counts: Any, dictionaries: dict[str, Any], version: str) -> dict[int, float]:
    """One cell by the tokenizer's specification, step by step: token -> its value, any order."""
    special, total = SPECIAL[version], float(sum(counts))
    summed: dict[str, float] = {}
    for gene, count in zip(GENES, counts, strict=True):
        read_as = dictionaries["mapping"][gene]
        if read_as in dictionaries["medians"]:
            summed[read_as] = summed.get(read_as, 0.0) + float(count)
    return {
        len(special) + GENES.index(gene): count / total * 10_000 / dictionaries["medians"][gene]
        for gene, count in summed.items()
        if count > 0
    }


def rows_of(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "state.json").read_text())
    found: list[dict[str, Any]] = []
    for entry in state["_data_files"]:
        with pa.OSFile(str(folder / entry["filename"])) as file:
            found += pa.ipc.open_stream(file).read_all().to_pylist()
    return found


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_tokens_follow_the_official_rules(
    corpus: Corpus, tmp_path: Path, official: Any, version: str
) -> None:
    folder = tmp_path / "t.dataset"
    done = export_tokens(
        corpus, folder, f"geneformer-{version}", Settings(), columns=["barcode", "cell_type"]
    )
    assert (done.n_cells, done.n_empty) == (21, 2)
    counts = {
        f"{name}{i}": row
        for name, n_cells in (("a", 9), ("b", 14))
        for i, row in enumerate(random_counts(n_cells))
    }
    rows = rows_of(folder)
    assert {row["barcode"] for row in rows} == set(counts) - {"a3", "b3"}
    for row in rows:
        tokens = row["input_ids"]
        assert row["length"] == len(tokens)
        assert row["cell_type"] == (
            None if row["barcode"][1:] == "1" else f"T{int(row['barcode'][1:]) % 3}"
        )
        if version == "v2":
            assert (tokens[0], tokens[-1]) == (2, 3)
            tokens = tokens[1:-1]
        value_of = official_rules(counts[row["barcode"]], official, version)
        assert sorted(tokens) == sorted(value_of)
        values = [value_of[token] for token in tokens]
        assert values == sorted(values, reverse=True) or np.allclose(
            values, sorted(values, reverse=True), rtol=EPS, atol=0
        )


def test_datasets_reads_the_folder_and_joins_it_to_its_own(
    corpus: Corpus, tmp_path: Path, official: Any
) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "t.dataset"
    export_tokens(corpus, folder, "geneformer-v1", Settings())
    loaded = datasets.load_from_disk(str(folder))
    assert loaded.column_names == ["input_ids", "length", "cell_id", "cell_type"]
    assert loaded.to_list() == rows_of(folder)
    theirs = datasets.Dataset.from_dict({"input_ids": [[5, 2]], "length": [2]})
    assert loaded.features["input_ids"] == theirs.features["input_ids"]
    ours = loaded.select_columns(["input_ids", "length"])
    assert datasets.concatenate_datasets([ours, theirs])[-1] == {"input_ids": [5, 2], "length": 2}


def test_shards_and_blocks_do_not_change_the_rows(
    corpus: Corpus, tmp_path: Path, official: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_tokens(corpus, tmp_path / "one", "geneformer-v2", Settings())
    monkeypatch.setattr(token_datasets, "BLOCK", 4)
    monkeypatch.setattr(token_datasets, "_SHARD_BYTES", 1)
    export_tokens(corpus, tmp_path / "many", "geneformer-v2", Settings())
    assert rows_of(tmp_path / "many") == rows_of(tmp_path / "one")
    names = sorted(path.name for path in (tmp_path / "many").glob("data-*"))
    assert names == [f"data-{i:05d}-of-00006.arrow" for i in range(6)]
    assert not list((tmp_path / "many").glob("part-*"))


def test_what_a_data_set_came_from_is_told_and_on_record(
    corpus: Corpus, tmp_path: Path, official: Any
) -> None:
    where = "cell_type = 'T1'"
    done = export_tokens(corpus, tmp_path / "t", "geneformer-v1", Settings(), where=where)
    told = json.loads((tmp_path / "t/cytolake.json").read_text())
    assert (told["corpus_uuid"], told["snapshot"]) == (corpus.uuid, corpus.snapshot)
    assert (told["where"], told["n_cells"], told["length"]) == (where, done.n_cells, 2048)
    [use] = corpus.uses()
    assert (use.kind, use.name, use.where) == ("export", "t", where)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"columns": ["cel_type"]}, "did you mean 'cell_type'"),
        ({"columns": ["length"]}, "the column 'length' is the tokens' own"),
        ({"recipe": "geneformer-v3"}, "did you mean 'geneformer-v"),
        ({"where": "cell_type = 'T9'"}, "no cell"),
        ({"where": "barcode = 'a3'"}, "has a gene of the vocabulary"),
    ],
)
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    corpus: Corpus, tmp_path: Path, official: Any, asked: Any, message: str
) -> None:
    recipe = asked.pop("recipe", "geneformer-v1")
    expected = (CorpusError, QueryError, RecipeError, NoCellsError)
    with pytest.raises(expected, match=message):
        export_tokens(corpus, tmp_path / "t", recipe, Settings(), **asked)
    assert not [path for path in tmp_path.iterdir() if "t" == path.name or ".t." in path.name]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_real_cells_have_the_official_tokenizers_tokens_up_to_ties(
    tmp_path: Path, version: str
) -> None:
    folder = resources() / "geneformer"
    golden = pq.read_table(folder / f"golden/pbmc3k_300cells_official_{version}_tokens.parquet")
    corpus = real_corpus(tmp_path / "corpus", "pbmc3k")
    target = tmp_path / "t.dataset"
    export_tokens(corpus, target, f"geneformer-{version}", load_settings(), columns=["barcode"])
    ours = {row["barcode"]: row for row in rows_of(target)}
    assert len(ours) == 2700
    dictionaries = folder / f"{version}_{LABELS[version]}"
    median_of = two_columns(dictionaries / f"gene_median_dictionary_{LABELS[version]}.tsv")
    token_of = two_columns(dictionaries / f"token_dictionary_{LABELS[version]}.tsv")
    read_as = two_columns(dictionaries / f"ensembl_mapping_dict_{LABELS[version]}.tsv")
    adata = corpus.to_anndata()
    genes = [read_as.get(gene, "") for gene in adata.var_names]
    tokens_g = np.array([int(token_of.get(gene, -1)) for gene in genes])
    medians_g = np.array([float(median_of.get(gene, "nan")) for gene in genes])
    place_of = {barcode: i for i, barcode in enumerate(adata.obs["barcode"])}
    n_tokens = n_differing = 0
    for row in golden.to_pylist():
        mine = ours[row["barcode"]]
        assert mine["length"] == row["length"] == len(mine["input_ids"])
        n_tokens += row["length"]
        pairs = zip(mine["input_ids"], row["input_ids"], strict=True)
        differing = [pair for pair in pairs if pair[0] != pair[1]]
        n_differing += len(differing)
        cell = adata.X[place_of[row["barcode"]]].toarray().ravel()
        for pair in differing:
            assert min(pair) >= len(SPECIAL[version])
            keys = [(cell / medians_g)[tokens_g == token].sum() for token in pair]
            assert keys[0] == pytest.approx(keys[1], rel=EPS)
    assert n_differing < 1e-4 * n_tokens


def two_columns(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()[1:]
    return dict(line.split("\t")[:2] for line in lines)
