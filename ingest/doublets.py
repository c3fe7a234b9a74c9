"""Doublets, found sample by sample between the passes: who is scored, what is called, and kept.

Knows units and staging; knows no segment and no commit. Only cells that all other rules keep are
looked at: debris makes no likely doublets. A sample's counts are read in the source's order, so
that scores do not depend on the size of units. Array suffix: c cell (row of the source).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray
from scipy import sparse

from ..platform.configuration import Configuration
from ..platform.errors import SourceError
from .judging import judge_unit, units_of
from .metadata import as_text
from .quality import Thresholds
from .rules import DoubletRules
from .scrublet import scrublet, valley
from .staging import leaving
from .survey import Opened

SCORE = "doublet_score"
"""The column of `source_obs` that holds each kept cell's score."""

FEWEST_CELLS = 50
"""A smaller sample is not scored: Scrublet wants 30 components and neighbours of each cell."""

_SLICE = 2**16
"""Rows of the source's columns that are read at once."""


class SampleScores(Configuration):
    """What became of one sample.

    Attributes:
        path: an Arrow file of the columns `row`, `score`, `doublet`; cells that were scored.
        n_cells: cells of the sample that all other rules keep.
        n_doublets: how many of them are called doublets.
        threshold: score above which a cell is one; None where no score parts them.
        skipped: why the sample has no scores, or no call.
    """

    path: Path
    n_cells: int
    n_doublets: int
    threshold: float | None
    skipped: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Which sample each cell of a source belongs to.

    Attributes:
        number_c: the sample, counted from 0 in the order of their first cells; -1 where the
            source does not say. Shape (n_rows,), int32.
        n_samples: number of samples.
    """

    number_c: NDArray[np.int32]
    n_samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RowScores:
    """Scores of a whole source, by row. Both arrays have shape (n_rows,).

    Attributes:
        score_c: NaN where a row has none.
        doublet_c: which rows are called doublets.
    """

    score_c: NDArray[np.float64]
    doublet_c: NDArray[np.bool_]


def score_column(taken: Iterable[str]) -> str:
    """The name of the column of scores; another where the source has one of that name itself."""
    return f"scrublet_{SCORE}" if SCORE in {name.lower() for name in taken} else SCORE


def samples_of(opened: Opened) -> Samples:
    """The samples of a source, by the column that its settings name.

    Raises:
        SourceError: the column has a value for every few cells: it names no samples.
    """
    rules = _rules_of(opened)
    n_rows = opened.survey.n_cells
    if rules.batch is None:
        return Samples(number_c=np.zeros(n_rows, dtype=np.int32), n_samples=1)
    numbers: dict[str, int] = {}
    number_c = np.full(n_rows, -1, dtype=np.int32)
    for start in range(0, n_rows, _SLICE):
        stop = min(start + _SLICE, n_rows)
        names = as_text(opened.own_columns(start, stop).column(rules.batch)).to_pylist()
        for row, name in enumerate(names, start):
            if name is not None:
                number_c[row] = numbers.setdefault(name, len(numbers))
    if len(numbers) > max(1, n_rows // FEWEST_CELLS):
        raise SourceError(
            f"{opened.survey.path}: column {rules.batch!r} has {len(numbers):,} values for "
            f"{n_rows:,} cells, expected a sample of {FEWEST_CELLS} cells or more for each: name "
            "another column as `batch` of [source.doublets]"
        )
    return Samples(number_c=number_c, n_samples=len(numbers))


def score_sample(opened: Opened, number: int, thresholds: Thresholds) -> SampleScores:
    """Score one sample's cells and leave the scores in the staging folder.

    Args:
        opened: the source.
        number: the sample.
        thresholds: of the whole source: cells that other rules drop are not looked at.

    Raises:
        StorageError: the disk says no.
    """
    rules = _rules_of(opened)
    path = opened.survey.folder / f"doublets-{number}.arrow"
    if path.exists():
        return SampleScores.model_validate_json(_note_in(path))
    rows, matrix = _counts_of_sample(opened, number, thresholds, rules.most_cells)
    score_c = np.full(len(rows), np.nan)
    threshold, skipped = None, _unfit(len(rows), rules)
    if skipped is None:
        try:
            score_c, simulated = scrublet(matrix, rules)
        except ValueError as error:  # too few genes vary, for one
            skipped = f"Scrublet cannot score it ({error})"
        else:
            threshold = valley(simulated) if rules.threshold is None else rules.threshold
            if threshold is None:
                skipped = "no threshold between two modes of scores was found, none was dropped"
    called = np.zeros(len(rows), dtype=bool) if threshold is None else score_c > threshold
    done = SampleScores(
        path=path,
        n_cells=len(rows),
        n_doublets=int(called.sum()),
        threshold=threshold,
        skipped=skipped,
    )
    table = pa.table({"row": rows, "score": score_c, "doublet": called})
    with leaving(path, "doublets") as unfinished:
        noted = table.replace_schema_metadata({"sample": done.model_dump_json()})
        feather.write_feather(noted, unfinished)
    return done


def with_doublets(thresholds: Thresholds, samples: Sequence[SampleScores]) -> Thresholds:
    """The thresholds of a source with those of its samples, whose names are told to no record."""
    found = [sample.threshold for sample in samples if sample.threshold is not None]
    bounds = dict(thresholds.bounds)
    if found:
        bounds[SCORE] = min(found)
    if len(set(found)) > 1:
        bounds |= {f"{SCORE}_least": bounds.pop(SCORE), f"{SCORE}_greatest": max(found)}
    why = [sample.skipped for sample in samples if sample.skipped is not None]
    skipped = dict(thresholds.skipped)
    if why:
        of = "" if len(samples) == 1 else f"{len(why)} of {len(samples)} samples: "
        skipped["doublet"] = of + "; ".join(dict.fromkeys(why))
    return replace(thresholds, bounds=bounds, skipped=skipped)


def doublet_note(rules: DoubletRules, samples: Sequence[SampleScores], n_unnamed: int) -> str:
    """One line for the receipt.

    Args:
        rules: the settings.
        samples: what became of each sample.
        n_unnamed: cells that the source puts in no sample.
    """
    n_scored = sum(sample.n_cells for sample in samples if sample.threshold is not None)
    n_doublets = sum(sample.n_doublets for sample in samples)
    line = (
        f"doublets: Scrublet (scanpy {version('scanpy')}, seed {rules.seed}) judged {n_scored:,} "
        f"cells, {len(samples)} sample(s), and called {n_doublets:,} doublets"
    )
    if not rules.drop:
        line += ", which are kept, as asked"
    if n_unnamed:
        line += f"; {n_unnamed:,} cells belong to no sample and have no score"
    return line


@lru_cache(maxsize=2)
def read_scores(paths: tuple[Path, ...], n_rows: int) -> RowScores:
    """The scores of a source's samples, by row of the source."""
    score_c, doublet_c = np.full(n_rows, np.nan), np.zeros(n_rows, dtype=bool)
    for path in paths:
        table = feather.read_table(path)
        rows = table.column("row").to_numpy()
        score_c[rows] = table.column("score").to_numpy()
        doublet_c[rows] = table.column("doublet").to_numpy()
    return RowScores(score_c=score_c, doublet_c=doublet_c)


def _rules_of(opened: Opened) -> DoubletRules:
    return opened.survey.entry.doublets or DoubletRules()


def _counts_of_sample(
    opened: Opened, number: int, thresholds: Thresholds, most: int
) -> tuple[NDArray[np.int64], sparse.csr_matrix]:
    """Rows and counts by gene of a sample's cells that are kept so far.

    Of a sample with more than `most` cells all rows are given, but no more counts are held.
    """
    number_c = samples_of(opened).number_c
    rows: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    n_genes = len(opened.genes.gene_ids)
    parts: list[sparse.csr_matrix] = [sparse.csr_matrix((0, n_genes), dtype=np.uint32)]
    for unit in units_of(opened.survey):
        if not (number_c[unit.start : unit.stop] == number).any():
            continue
        for cells in judge_unit(opened, unit, thresholds):
            mine = np.flatnonzero((cells.reason_c == "") & (number_c[cells.rows] == number))
            rows.append(cells.rows[mine])
            if sum(map(len, rows)) > most:
                parts = parts[:1]
            else:
                indptr, indices, counts = opened.genes.sum_genes([(cells.matrix, mine)])
                shape = (len(mine), n_genes)
                parts.append(sparse.csr_matrix((counts, indices, indptr), shape=shape))
    return np.concatenate(rows), sparse.csr_matrix(sparse.vstack(parts, format="csr"))


def _unfit(n_cells: int, rules: DoubletRules) -> str | None:
    if n_cells > rules.most_cells:
        return (
            f"a sample has more than {rules.most_cells:,} cells, too many to hold at once: name a "
            "finer `batch`, or raise most_cells"
        )
    if n_cells < FEWEST_CELLS:
        return f"a sample has fewer than {FEWEST_CELLS} cells that the other rules keep"
    return None


def _note_in(path: Path) -> str:
    metadata = feather.read_table(path).schema.metadata
    return json.dumps(json.loads(metadata[b"sample"]) | {"path": str(path)})
