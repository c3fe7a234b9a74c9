"""10x Genomics matrices as text: a folder, or a tar, of matrix.mtx, features or genes, barcodes.

Knows 10x's layout; a tar is read member by member and never unpacked to disk.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa

from ...platform.errors import SourceError
from .archives import UNREADABLE, members_of, open_tar, unzipped
from .protocol import INDEX, Layer, Names, RawBlock, Triplets
from .tenx_h5 import GENE_EXPRESSION, left_out_note, listed_types

_LINES = 2**20
_MOST_NAMES = 2**28
_MATRIX, _GENES, _BARCODES = "matrix.mtx", ("features.tsv", "genes.tsv"), "barcodes.tsv"

MATRIX_ENDINGS = (_MATRIX, f"{_MATRIX}.gz")


@dataclass(frozen=True, kw_only=True, slots=True)
class TenxMtxSource:
    """A filtered_feature_bc_matrix folder, its tar, or a matrix.mtx with its parts beside it."""

    path: Path
    feature_type: str = GENE_EXPRESSION
    format: str = "10x_mtx"

    @property
    def notes(self) -> tuple[str, ...]:
        """The feature types that are left out, with their numbers."""
        return left_out_note(self._types())

    def feature_types(self) -> list[str]:
        """The types of features that it holds; none where the folder does not say."""
        types = self._types()
        return [] if types is None else sorted({str(kind) for kind in types})

    def _types(self) -> Names | None:
        features = self._features()
        return features[2] if len(features) > 2 else None

    def layers(self) -> list[Layer]:
        """One layer: the matrix, read from its beginning."""
        with self.open_member(_MATRIX) as file:
            n_features, n_cells, n_stored = self._header(file)
        named = len(self._features()[0]), len(self.barcodes())
        if named != (n_features, n_cells):
            raise SourceError(
                f"{self.path}: the matrix is {n_features} x {n_cells} but {named[0]} features and "
                f"{named[1]} barcodes are named"
            )
        n_genes = len(self._kept())
        if n_genes == 0 and n_features:
            raise SourceError(
                f"{self.path}: holds no feature of type {self.feature_type}: "
                f"it has {listed_types(self._types())}"
            )
        return [Layer(name="matrix", n_genes=n_genes, order="columns", n_stored=n_stored)]

    def genes(self, layer: str) -> dict[str, Names]:
        """Ids first, then names."""
        kept, features = self._kept(), self._features()
        columns = {INDEX: features[0][kept]}
        if len(features) > 1:
            columns["name"] = features[1][kept]
        return columns

    def barcodes(self) -> Names:
        """The barcodes."""
        return self._table(_BARCODES)[0]

    def obs_columns(self) -> list[str]:
        """None: 10x folders have no table of cells."""
        return []

    def obs(self, start: int, stop: int) -> pa.Table:
        """An empty table: 10x folders have none."""
        return pa.table({})

    def sample(self, layer: str) -> Triplets:
        """The first lines of the matrix."""
        for piece in self._pieces(2**17):
            return piece
        raise SourceError(f"{self.path}: the matrix has no values")

    def blocks(self, layer: str, start: int, stop: int) -> Iterator[RawBlock]:
        """Not offered: the matrix has to be spooled."""
        raise SourceError(f"{self.path}: {layer} is text and has to be spooled first")

    def triplets(self, layer: str) -> Iterator[Triplets]:
        """All values, in the order of the file."""
        return self._pieces(_LINES)

    def _pieces(self, lines: int) -> Iterator[Triplets]:
        kept = self._kept()
        with self.open_member(_MATRIX) as file:
            n_features, n_cells, n_stored = self._header(file)
            gene_of = np.full(n_features, -1, dtype=np.int32)
            gene_of[kept] = np.arange(len(kept), dtype=np.int32)
            n_read = 0
            try:
                chunks = pd.read_csv(
                    file, sep=r"\s+", header=None, names=["gene", "cell", "value"], chunksize=lines,
                    dtype={"gene": np.int64, "cell": np.int64, "value": np.float64},
                )  # fmt: skip
                for chunk in chunks:
                    genes, cells = chunk["gene"].to_numpy() - 1, chunk["cell"].to_numpy() - 1
                    self._within(genes, n_features, n_read, "row")
                    self._within(cells, n_cells, n_read, "column")
                    n_read += len(chunk)
                    known = gene_of[genes] >= 0
                    yield Triplets(
                        cells=cells[known],
                        genes=gene_of[genes][known],
                        values=chunk["value"].to_numpy()[known],
                    )
            except UNREADABLE as error:
                raise SourceError(f"{self.path}: {_MATRIX} is damaged: {error}") from error
        if n_read > n_stored:
            raise SourceError(
                f"{self.path}: {_MATRIX} announces {n_stored} values and holds {n_read}: the file "
                "is damaged"
            )
        if n_read < n_stored and lines == _LINES:
            raise SourceError(
                f"{self.path}: {_MATRIX} announces {n_stored} values and ends after {n_read}: "
                "the file is cut short"
            )

    def _within(self, positions: np.ndarray, length: int, n_read: int, what: str) -> None:
        outside = np.flatnonzero((positions < 0) | (positions >= length))
        if outside.size:
            raise SourceError(
                f"{self.path}: value {n_read + int(outside[0]) + 1} of {_MATRIX} names {what} "
                f"{int(positions[outside[0]]) + 1} of {length}: the file is damaged"
            )

    def _header(self, file: IO[bytes]) -> tuple[int, int, int]:
        first = file.readline().decode("utf-8", errors="replace").lower().split()
        if len(first) < 5 or first[0] != "%%matrixmarket" or first[2] != "coordinate":
            raise SourceError(
                f"{self.path}: {_MATRIX} begins {' '.join(first)!r:.80}, expected "
                "'%%MatrixMarket matrix coordinate'"
            )
        if first[3] not in ("integer", "real") or first[4] != "general":
            raise SourceError(f"{self.path}: {_MATRIX} is {first[3]} {first[4]}, expected general")
        line = file.readline()
        while line.startswith(b"%"):
            line = file.readline()
        try:
            n_features, n_cells, n_stored = (int(word) for word in line.split())
        except ValueError as error:
            raise SourceError(f"{self.path}: {_MATRIX} has no line of sizes: {line!r}") from error
        return n_features, n_cells, n_stored

    def _features(self) -> list[Names]:
        return self._table(*_GENES)

    def _kept(self) -> np.ndarray:
        features = self._features()
        if len(features) < 3:
            return np.arange(len(features[0]))
        return np.flatnonzero(features[2] == self.feature_type)

    def _table(self, *names: str) -> list[Names]:
        status = self.path.stat()
        return _read_table(self, names, status.st_size, status.st_mtime_ns)

    @contextmanager
    def open_member(self, *names: str) -> Generator[IO[bytes]]:
        """The file of one of these names, gzipped or not, in the folder or the tar.

        Raises:
            SourceError: there is not one, or it cannot be read to where its reader got.
        """
        try:
            with self._member(*names) as file:
                yield file
        except UNREADABLE as error:
            raise SourceError(f"{self.path}: {names[0]} is damaged: {error}") from error

    @contextmanager
    def _member(self, *names: str) -> Generator[IO[bytes]]:
        wanted = [name + end for name in names for end in ("", ".gz")]
        if self.path.is_dir():
            found = [path for name in wanted for path in sorted(self.path.rglob(name))]
            if len(found) != 1:
                raise self._not_one(names, [str(path) for path in found])
            with found[0].open("rb") as file:
                yield _unzipped(file, found[0].stat().st_size, str(found[0]))
            return
        if self.path.name.endswith(MATRIX_ENDINGS):
            found = [path for path in parts_beside(self.path) if path.name.endswith(tuple(wanted))]
            if len(found) != 1:
                raise self._not_one(names, [str(path) for path in found])
            with found[0].open("rb") as file:
                yield _unzipped(file, found[0].stat().st_size, str(found[0]))
            return
        with open_tar(self.path) as archive:
            members = [m for m in members_of(archive, self.path) if Path(m.name).name in wanted]
            if len(members) != 1:
                raise self._not_one(names, [member.name for member in members])
            file = archive.extractfile(members[0])
            if file is None:
                raise self._not_one(names, [])
            yield _unzipped(file, members[0].size, f"{self.path}: {members[0].name}")

    def _not_one(self, names: tuple[str, ...], found: list[str]) -> SourceError:
        have = ", ".join(found) or "none"
        return SourceError(f"{self.path}: expected one {' or '.join(names)}(.gz), found {have}")


def parts_beside(path: Path) -> list[Path]:
    """A matrix.mtx(.gz) whose name a sample leads (as GEO has it), and what names its parts.

    Returns:
        Matrix, genes, barcodes; only the matrix where it lies alone.
    """
    lead = path.name.removesuffix(".gz").removesuffix(_MATRIX)
    near = [
        path.with_name(f"{lead}{name}{end}") for name in (*_GENES, _BARCODES) for end in ("", ".gz")
    ]
    return [path, *(part for part in near if part.is_file())]


@lru_cache(maxsize=4)
def _read_table(
    source: TenxMtxSource, names: tuple[str, ...], size: int, modified: int
) -> list[Names]:
    """The columns of a small table; kept, for finding it in a tar means unpacking the tar."""
    with source.open_member(*names) as file:
        try:
            data = file.read(_MOST_NAMES + 1)
        except UNREADABLE as error:
            raise SourceError(f"{source.path}: {names[0]} is damaged: {error}") from error
    if len(data) > _MOST_NAMES:
        raise SourceError(
            f"{source.path}: {names[0]} holds more than {_MOST_NAMES:,} bytes: no list of names"
        )
    lines = data.decode("utf-8", errors="backslashreplace").split("\n")
    rows = [line.removesuffix("\r").split("\t") for line in lines if line.strip()]
    width = min((len(row) for row in rows), default=1)
    return [np.array([row[column] for row in rows], dtype=object) for column in range(width)]


def _unzipped(file: IO[bytes], size: int, where: str) -> IO[bytes]:
    return unzipped(file, size, where) if where.endswith(".gz") else file
