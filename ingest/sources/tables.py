"""Tables of counts as text: csv, tsv or txt, gzipped or not, cells down or genes down.

Knows delimiters and R's habit of leaving the corner cell out; asks its caller which names are
genes. Reads line by line, so the memory needed is that of a few lines.
"""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...platform.errors import NoGenesError, SourceError
from .archives import UNREADABLE, unzipped
from .protocol import INDEX, Layer, Names, RawBlock, Triplets, shape_of_names

Orientation = Literal["genes_x_cells", "cells_x_genes"]
Recognise = Callable[[Names], int]
"""How many of some names are names of genes."""

_SAMPLE_LINES = 200
_VALUES = 2**21


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSource:
    """A text table whose first column and first line are names.

    Attributes:
        path: the file.
        orientation: what a line is: a gene (`genes_x_cells`) or a cell.
    """

    path: Path
    orientation: Orientation
    format: str = "csv"

    @property
    def notes(self) -> tuple[str, ...]:
        """Which way round the table was read."""
        lines, columns = self.orientation.split("_x_")
        return (f"read as {lines} down, {columns} across",)

    def layers(self) -> list[Layer]:
        """One layer, read from its beginning."""
        n_genes = -1 if self.orientation == "genes_x_cells" else len(column_names(self.path))
        return [Layer(name="table", n_genes=n_genes, order="columns", n_stored=None)]

    def genes(self, layer: str) -> dict[str, Names]:
        """The names of the genes; down the side they cost one pass over the file."""
        down = self.orientation == "genes_x_cells"
        return with_parts(row_names(self.path) if down else column_names(self.path))

    def barcodes(self) -> Names:
        """The names of the cells; down the side they cost one pass over the file."""
        down = self.orientation == "cells_x_genes"
        return row_names(self.path) if down else column_names(self.path)

    def obs_columns(self) -> list[str]:
        """None: the table holds counts only."""
        return []

    def obs(self, start: int, stop: int) -> pa.Table:
        """An empty table."""
        return pa.table({})

    def sample(self, layer: str) -> Triplets:
        """The values of the first lines."""
        return next(self._pieces(_SAMPLE_LINES))

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Not offered: the table has to be spooled."""
        raise SourceError(f"{self.path}: {layer} is text and has to be spooled first")

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values that are not 0, in the order of the file."""
        return self._pieces(max(1, _VALUES // max(1, len(column_names(self.path)))))

    def _pieces(self, lines: int) -> Iterator[Triplets]:
        rows: list[NDArray[np.float64]] = []
        first = 0
        for _, values in numbers(self.path):
            rows.append(values)
            if len(rows) == lines:
                yield self._triplets(first, rows)
                first += len(rows)
                rows = []
        if rows or first == 0:
            yield self._triplets(first, rows)

    def _triplets(self, first: int, rows: list[NDArray[np.float64]]) -> Triplets:
        table = np.vstack(rows) if rows else np.zeros((0, 0))
        down, across = np.nonzero(table)
        values = table[down, across]
        down = down + first
        cells, genes = (across, down) if self.orientation == "genes_x_cells" else (down, across)
        return Triplets(cells=cells.astype(np.int64), genes=genes.astype(np.int32), values=values)


def open_table(path: Path, orientation: Orientation | None, recognise: Recognise) -> TableSource:
    """The table, the way round in which its names are names of genes.

    Args:
        path: the file.
        orientation: what a line is; found out by the names where None.
        recognise: how many of some names are names of genes.

    Raises:
        NoGenesError: neither side names genes.
        SourceError: the file is no table.
    """
    if orientation is None:
        across = column_names(path)
        down = row_names(path, most=1000)
        n_across, n_down = (
            max(recognise(part) for part in with_parts(names).values()) / max(1, len(names))
            for names in (across[:1000], down)
        )
        if max(n_across, n_down) == 0:
            raise NoGenesError(
                f"{path}: neither the first column {shape_of_names(down)} nor the first line "
                f"{shape_of_names(across)} names genes; expected Ensembl ids (ENSG00000141510) or "
                "human symbols (TP53). Is it a table of counts of human cells?"
            )
        orientation = "genes_x_cells" if n_down >= n_across else "cells_x_genes"
    return TableSource(path=path, orientation=orientation)


def with_parts(names: Names) -> dict[str, Names]:
    """The names as they stand, and by themselves the parts that most are joined of by `|`.

    TCGA's RSEM tables say `TP53|7157`, others `ENSG00000141510.18|TP53`. A name of other parts
    (`N_unmapped`) stands whole among them.
    """
    split = [str(name).split("|") for name in names]
    width, n_alike = Counter(map(len, split)).most_common(1)[0] if split else (1, 0)
    columns = {INDEX: names}
    if width > 1 and n_alike > len(names) / 2:
        for number in range(width):
            parts = [words[number] if len(words) == width else "|".join(words) for words in split]
            columns[f"part {number + 1}"] = np.array(parts, dtype=object)
    return columns


def column_names(path: Path) -> Names:
    """The names in the first line, the corner cell left out where there is one."""
    delimiter = delimiter_of(path)
    with open_text(path) as file:
        header = _words(file.readline(), delimiter)
        second = file.readline()
    width = len(_words(second, delimiter)) if second.strip() else len(header)
    names = header if len(header) == width - 1 else header[1:]  # R leaves the corner cell out
    if not names or len(header) not in (width, width - 1):
        raise SourceError(
            f"{path}: the first line has {len(header)} words and the second {width}: expected a "
            "line of names, then lines of a name and numbers"
        )
    return np.array(names, dtype=object)


def row_names(path: Path, most: int | None = None) -> Names:
    """The names in the first column, the first `most` of them."""
    delimiter = delimiter_of(path)
    names: list[str] = []
    with open_text(path) as file:
        file.readline()
        for line in file:
            if line.strip():
                names.append(_bare(line.split(delimiter, 1)[0]))
            if most is not None and len(names) >= most:
                break
    return np.array(names, dtype=object)


def numbers(path: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Name and numbers of each line after the first.

    Raises:
        SourceError: a line is longer or shorter than the first, or holds something else.
    """
    delimiter = delimiter_of(path)
    width = len(column_names(path))
    separator = " " if delimiter == "\t" else delimiter
    with open_text(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's only word on text left over
        file.readline()
        for number, line in enumerate(file, start=2):
            if not line.strip():
                continue
            name, _, rest = line.partition(delimiter)
            if '"' in rest:
                rest = rest.replace('"', "")
            try:
                values = np.fromstring(rest, dtype=np.float64, sep=separator)
            except (DeprecationWarning, ValueError):
                values = np.zeros(0)
            # numpy takes two tabs for one: an empty cell would let the others move up.
            n_tabs = rest.rstrip().count("\t") if delimiter == "\t" else width - 1
            if len(values) != width or n_tabs != width - 1:
                raise _bad_line(path, number, rest.split(delimiter), width)
            yield _bare(name), values


def _bad_line(path: Path, number: int, words: list[str], width: int) -> SourceError:
    place = f"{path}: line {number}"  # not by its name: it goes on record, where no barcode may
    if len(words) != width:
        return SourceError(f"{place} has {len(words)} values, expected {width}")
    wrong = next((word.strip() for word in words if not _is_number(word)), "an empty cell")
    return SourceError(f"{place} holds {wrong!r:.60}, expected a number")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@contextmanager
def open_text(path: Path) -> Generator[IO[str]]:
    """A text file open for reading, unzipped where it is gzipped.

    Raises:
        SourceError: it is no text in UTF-8, or cannot be read to its end.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            data = unzipped(raw, path.stat().st_size, str(path)) if zipped else raw
            yield io.TextIOWrapper(data, encoding="utf-8-sig", newline=None)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: is not text in UTF-8: {error}; convert it first: iconv -f latin1 -t utf8"
        ) from error
    except UNREADABLE as error:
        raise SourceError(f"{path}: cannot be read to its end: {error}") from error


def delimiter_of(path: Path) -> str:
    """The delimiter of the second line: a line of numbers shows it best."""
    with open_text(path) as file:
        lines = file.readline(), file.readline()
    line = lines[1] or lines[0]
    counts = {delimiter: line.count(delimiter) for delimiter in ("\t", ",", ";")}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    if counts[best]:
        return best
    if " " in line.strip():
        return " "
    raise SourceError(f"{path}: no table: expected values between commas, tabs or semicolons")


def _words(line: str, delimiter: str) -> list[str]:
    return [_bare(word) for word in line.rstrip("\r\n").split(delimiter)]


def _bare(word: str) -> str:
    return word.strip().strip('"')
