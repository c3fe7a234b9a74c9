"""A damaged corpus asked everything that a corpus can be asked; `python -m` of it is a worker.

Knows what a sound corpus answers; knows no way of damage. For each fault the corpus is opened anew
and what this process has found of any file is forgotten. An answer is right, or an error of ours;
all else is silent damage, which must not be.

The worker: `python -m cytolake.tests.faults.examination SOUND FOLDER SEED FIRST STEP N_FAULTS`.
It examines the faults FIRST, FIRST + STEP, ... and says a line of JSON for each.
"""

import hashlib
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cytolake.corpus.log import links, tombstones
from cytolake.corpus.log.tags import tags
from cytolake.corpus.payload import integrity
from cytolake.corpus.query.uses import uses
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.platform.errors import CytolakeError
from cytolake.tests.faults.damage import SAME_SIZE, Fault, draw_faults, inflict, mend
from cytolake.tests.faults.sound_corpus import OLD, TAGGED, kinds_of

_ROWS = "SELECT count(*) AS n, bit_xor(hash(t)) AS rows FROM {view} t"
_VIEWS = (
    *("cells", "genes", "measured", "expression"),
    *("sources", "source_obs", "dropped", "segments", "features", "protein"),
)
_QUERIES = (
    *(_ROWS.format(view=view) for view in _VIEWS),
    "SELECT tissue, cell_type, count(*) AS n, sum(n_counts) AS total FROM cells GROUP BY ALL "
    "ORDER BY ALL",
    "SELECT gene_id, sum(count) AS total FROM expression GROUP BY 1 ORDER BY 1",
    "SELECT c.tissue, sum(e.count) AS total FROM expression e JOIN cells c USING (cell_id) "
    "WHERE e.symbol = 'GENE7' GROUP BY 1 ORDER BY 1",
    "SELECT source_id, is_primary, count(*) AS n FROM cells GROUP BY ALL ORDER BY ALL",
)
_REFUSED = "refused: "


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a fault.

    Attributes:
        fault: the fault.
        found: whether deep verification told of it, or opening refused.
        told: questions that an error of ours answered.
        wrong: question -> what was answered instead of the right thing or an error of ours.
    """

    fault: Fault
    found: bool
    told: tuple[str, ...]
    wrong: Mapping[str, str]

    @property
    def is_silent(self) -> bool:
        """Whether a wrong number could get out, or an error that is none of ours.

        A swap of files of equal size may be met by deep verification alone.
        """
        crashed = any(said.startswith("crashed") for said in self.wrong.values())
        return crashed or (bool(self.wrong) and not (self.found and self.fault.what == SAME_SIZE))

    @property
    def is_harmless(self) -> bool:
        """Whether nobody can tell: all answers are right, and nothing is said."""
        return not (self.found or self.told or self.wrong)


def examine(folder: Path, right: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ask everything.

    Args:
        folder: the corpus.
        right: the answers of the sound corpus; questions that are answered so are left out.

    Returns:
        Question -> a digest of its answer; or the error's class and what it said.
    """
    answers: dict[str, str] = {}
    _forget()
    for question, ask in _questions(folder).items():
        try:
            answer = _digest(ask())
        except CytolakeError as error:
            answer = f"{_REFUSED}{type(error).__name__}: {error}"
        except BaseException as error:  # a panic of a library's Rust is none of Exception's
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            answer = f"crashed: {error!r:.300} ({last.filename}:{last.lineno})"
        if right is None or answer != right[question]:
            answers[question] = answer
    return answers


def judge(fault: Fault, answers: Mapping[str, str]) -> Outcome:
    """What became of a fault, by the answers that differ from the sound corpus's."""
    told = tuple(name for name, answer in answers.items() if answer.startswith(_REFUSED))
    wrong = {name: said for name, said in answers.items() if name not in told}
    # What verification says of a fault is another answer than that of the sound corpus, and right.
    found = "verify" in told or not wrong.get("verify", "crashed").startswith("crashed")
    if found:
        wrong.pop("verify", None)
    return Outcome(fault=fault, found=found, told=told, wrong=wrong)


def _questions(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is asked; questions to the same snapshot share a handle, as a user's do."""

    def opened(snapshot: int | str | None = None) -> Callable[[], Corpus]:
        return lru_cache(maxsize=1)(lambda: Corpus.open(folder, snapshot))

    def sql(corpus: Callable[[], Corpus], query: str) -> Callable[[], Any]:
        return lambda: corpus().sql(query).to_pylist()

    newest, streamed = opened(), opened()
    questions: dict[str, Callable[[], Any]] = {
        "verify": lambda: opened()().verify(deep=True),
        "log": lambda: newest().log(),
        "tags": lambda: {name: asdict(tag) for name, tag in tags(folder).items()},
        "uses": lambda: [asdict(use) for use in uses(folder)],
        "stream": lambda: _stream(streamed()),
        "to_anndata": lambda: _anndata(streamed()),
        "to_mudata": lambda: _mudata(streamed()),
        **{query: sql(newest, query) for query in _QUERIES},
        "show": lambda: newest().show(),
    }
    for snapshot in (OLD, TAGGED):
        older = opened(snapshot)
        for view in ("cells", "expression"):
            questions[f"{view} of {snapshot}"] = sql(older, _ROWS.format(view=view))
        questions[f"stream of {snapshot}"] = lambda older=older: _stream(older())
    return questions


def _stream(corpus: Corpus) -> list[list[str]]:
    """Two epochs of all cells, in their orders."""
    selection = corpus.select(primary_only=False)
    stream = Stream(corpus, selection, seed=0, cells_per_group=64, columns=("donor_id",))
    try:
        return [
            [selection.digest],
            *(
                [_of_arrays(batch) for group in stream.epoch(epoch) for batch in group]
                for epoch in range(2)
            ),
        ]
    finally:
        stream.close()


def _of_arrays(batch: Any) -> str:
    digest = hashlib.sha256()
    for array in (batch.indptr, batch.indices, batch.counts, batch.n_counts, batch.content_keys):
        digest.update(np.ascontiguousarray(array).tobytes())
    told = [*batch.gene_ids.tolist(), batch.obs.to_pylist()]
    return digest.hexdigest() + _digest(told)


def _anndata(corpus: Corpus) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = corpus.to_anndata()
    counts = hashlib.sha256()
    for array in (adata.X.indptr, adata.X.indices, adata.X.data):
        counts.update(array.tobytes())
    return [counts.hexdigest(), adata.obs.to_csv(), adata.var.to_csv()]


def _mudata(corpus: Corpus) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = corpus.to_mudata("source_id = 'heart'", ["protein"])["protein"]
    return [found.X.toarray().tolist(), found.obs.to_csv(), found.var.to_csv()]


def _digest(answer: Any) -> str:
    return hashlib.sha256(repr(answer).encode()).hexdigest()


def _forget() -> None:
    """What this process knows of files that it has read: a fresh one knows nothing."""
    integrity._hashes.clear()
    tombstones._read.cache_clear()
    links.read_links.cache_clear()


def main(sound: Path, folder: Path, seed: int, first: int, step: int, n_faults: int) -> None:
    """Examine some of the faults of a seed, one after the other.

    Args:
        sound: the sound corpus.
        folder: a copy of it, which is damaged and mended.
        seed: of the faults.
        first: the first fault.
        step: every so manieth from there on.
        n_faults: of the whole campaign.
    """
    right = examine(folder)
    amiss = {name: said for name, said in right.items() if said.startswith((_REFUSED, "crashed"))}
    assert not amiss, f"the sound corpus does not answer: {amiss}"
    assert Corpus.open(folder).verify(deep=True) == [], "the sound corpus does not verify"
    faults = draw_faults(sound, kinds_of(sound), n_faults, seed)
    for fault in faults[first::step]:
        changed = inflict(fault, folder, seed)
        outcome = judge(fault, examine(folder, right))
        mend(changed, folder, sound)
        print(json.dumps(asdict(outcome)), flush=True)
    assert not examine(folder, right), "the mended corpus answers otherwise than the sound one"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
