"""A table of measured proteins beside a source: read, matched to its samples by name.

Knows text tables; knows no corpus. Values are real: sign and zero are data. NA, NaN and an empty
field mean that a protein was not measured in a sample; nothing is stored for it, least of all 0.
Holds the table as float32: 4 bytes a sample and protein.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..corpus.features import FEATURE_COLUMNS, FeatureBatch
from ..platform.errors import SourceError
from .metadata import shape_of_names
from .sources.protocol import Names
from .sources.tables import delimiter_of, open_text

NOT_MEASURED = {"", "na", "nan", "n/a", "null"}
"""Words for a value that there is none of, in any letter case."""

FEATURE_TYPE = "Abundance"


@dataclass(frozen=True, kw_only=True, slots=True)
class AbundanceTable:
    """What a table holds. Array suffixes: s sample of the source, p protein.

    Attributes:
        path: the file.
        proteins: their names, verbatim. n_proteins words.
        row_of_s: each sample's row in `values_rp`, -1 where it is not in the table. Shape
            (n_samples,), int64.
        values_rp: NaN where a protein was not measured. float32, shape (n_rows, n_proteins).
    """

    path: Path
    proteins: tuple[str, ...]
    row_of_s: NDArray[np.int64]
    values_rp: NDArray[np.float32]

    @property
    def note(self) -> str:
        """One line for the receipt."""
        mine = self.values_rp[self.row_of_s[self.row_of_s >= 0]]
        others = len(self.values_rp) - len(mine)
        return (
            f"protein_abundance: {len(self.proteins):,} proteins of {self.path.name} in "
            f"{len(mine):,} of {len(self.row_of_s):,} samples, "
            f"{int(np.isnan(mine).sum()):,} values not measured"
            + (f"; {others:,} samples of the table are not in the source" if others else "")
        )

    def batch(self, rows: NDArray[np.int64]) -> FeatureBatch:
        """The measured values of some samples of the source, in the order asked for.

        Args:
            rows: of the source. Shape (n_rows,).
        """
        places = self.row_of_s[rows]
        found = np.full((len(rows), len(self.proteins)), np.nan, dtype=np.float32)
        found[places >= 0] = self.values_rp[places[places >= 0]]
        measured = ~np.isnan(found)
        n_proteins = len(self.proteins)
        var = {
            "feature_id": pa.array(self.proteins, pa.string()),
            "name": pa.nulls(n_proteins, pa.string()),
            "feature_type": pa.array([FEATURE_TYPE] * n_proteins, pa.string()),
            "genome": pa.nulls(n_proteins, pa.string()),
        }
        return FeatureBatch(
            var=pa.table(var, schema=FEATURE_COLUMNS),
            indptr=np.concatenate([[0], np.cumsum(measured.sum(axis=1))]).astype(np.int64),
            indices=np.nonzero(measured)[1].astype(np.int32),
            values=found[measured],
        )


def read_abundance(path: Path, samples: Names) -> AbundanceTable:
    """Read a table whose rows or columns are samples of a source.

    Args:
        path: text, gzipped or not; first line and first column are names.
        samples: the source's names of its rows.

    Raises:
        SourceError: it is no table; neither side names a sample of the source, or a name stands
            twice; a value is no number, or no finite one.
    """
    names = samples.astype(str)
    first, second = (int(n) for n in _twice(names.tolist()))
    if first >= 0:
        raise SourceError(
            f"{path}: rows {first} and {second} of the source have one name: which of them a "
            "protein was measured in cannot be told"
        )
    across, down, values = _read(path)
    n_across = int(np.isin(np.array(across, dtype=str), names).sum())
    n_down = int(np.isin(np.array(down, dtype=str), names).sum())
    if not n_across and not n_down:
        raise SourceError(
            f"{path}: no sample in common with the source: neither its first line "
            f"{shape_of_names(across)} nor its first column {shape_of_names(down)} names one "
            f"{shape_of_names(samples.tolist())}; the names must be equal, letter by letter"
        )
    by_column = n_across > n_down
    of_table, proteins = (across, down) if by_column else (down, across)
    one, other = ("column", "line") if by_column else ("line", "column")
    # Errors go on record, where no sample may be named: places tell, too.
    _refuse_twice(path, of_table, f"one sample stands in {one}s")
    _refuse_twice(path, proteins, f"one protein stands in {other}s", tell=True)
    row_of = {name: row for row, name in enumerate(of_table)}
    return AbundanceTable(
        path=path,
        proteins=tuple(proteins),
        row_of_s=np.array([row_of.get(name, -1) for name in names.tolist()], dtype=np.int64),
        values_rp=np.ascontiguousarray(values.T) if by_column else values,
    )


def _read(path: Path) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """The names in the first line, those of the other lines, and the values.

    R leaves the corner cell out: then the first line has a word less than the others.
    """
    delimiter = delimiter_of(path)
    across: list[str] | None = None
    header: list[str] = []
    down: list[str] = []
    rows: list[NDArray[np.float32]] = []
    with open_text(path) as file:
        lines = csv.reader(file, delimiter=delimiter)
        try:
            for words in lines:
                if not any(word.strip() for word in words):
                    continue
                if not header:
                    header = [word.strip() for word in words]
                    continue
                if across is None:
                    across = header if len(header) == len(words) - 1 else header[1:]
                if len(words) != len(across) + 1:
                    raise SourceError(
                        f"{path}: line {lines.line_num} has {len(words)} words, expected a name "
                        f"and {len(across)} values"
                    )
                down.append(words[0].strip())
                rows.append(_numbers(path, lines.line_num, words[1:]))
        except csv.Error as error:
            raise SourceError(
                f"{path}: line {lines.line_num} is no line of a table: {error}"
            ) from error
    if across is None or not across:
        raise SourceError(f"{path}: no table: expected a line of names, then a name and values")
    if "" in across or "" in down:
        where = "a column" if "" in across else f"row {down.index('') + 1}"
        raise SourceError(f"{path}: {where} has no name")
    return across, down, np.vstack(rows)


def _numbers(path: Path, line: int, words: Sequence[str]) -> NDArray[np.float32]:
    found = np.full(len(words), np.nan)
    for place, word in enumerate(words):
        bare = word.strip()
        if bare.lower() in NOT_MEASURED:
            continue
        where = f"{path}: line {line}, column {place + 2}"
        try:
            found[place] = float(bare.replace("_", " "))  # Python alone takes 1_000 for a number
        except ValueError:
            raise SourceError(
                f"{where} holds {bare!r:.60}, expected a number, or NA where a protein was not "
                "measured; leave columns of text out, or give them as `metadata`"
            ) from None
        if not abs(found[place]) <= np.finfo(np.float32).max:
            raise SourceError(
                f"{where} holds {bare!r:.60}, expected a finite number that float32 holds; write "
                "NA where a protein was not measured (a logarithm of 0 is none)"
            )
    return found.astype(np.float32)


def _refuse_twice(path: Path, names: list[str], what: str, *, tell: bool = False) -> None:
    first, second = _twice(names)
    if first >= 0:
        name = f" ({names[first]})" if tell else ""
        raise SourceError(
            f"{path}: {what} {first + 2} and {second + 2}{name}: give each a name of its own"
        )


def _twice(names: Sequence[str]) -> tuple[int, int]:
    """The places of the first name that stands again, (-1, -1) where none does."""
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if name in seen:
            return seen[name], place
        seen[name] = place
    return -1, -1
