"""Rows of a gene-major file out of its pages, held against what pyarrow reads of the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.payload import expression
from cytolake.corpus.payload.expression import write_gene_major
from cytolake.corpus.payload.gene_pages import GenePages
from cytolake.corpus.sparse_counts import Columns
from cytolake.platform.errors import DamageError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray


def written(path: Path, rows: NDArray[np.uint32], counts: NDArray[np.uint32], page: int) -> Path:
    """A file as `write_gene_major` writes it, in smaller pages and row groups."""
    schema = pa.schema(
        [
            pa.field("gene", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("row", pa.uint32(), nullable=False),
            pa.field("count", pa.uint32(), nullable=False),
        ]
    )
    gene = pa.DictionaryArray.from_arrays(np.zeros(len(rows), dtype=np.int32), ["G"])
    pq.write_table(
        pa.table([gene, rows, counts], schema=schema),
        path,
        compression="zstd",
        use_dictionary=["gene"],  # pyright: ignore[reportArgumentType] - a list is taken
        column_encoding={"row": "DELTA_BINARY_PACKED", "count": "BYTE_STREAM_SPLIT"},
        write_statistics=["gene"],  # pyright: ignore[reportArgumentType] - a list is taken
        write_batch_size=page,
        data_page_size=4 * page,
        row_group_size=4 * page,
        write_page_checksum=True,
    )
    return path


def read(pages: GenePages, first: int, stop: int) -> tuple[list[int], list[int]]:
    rows, counts = np.empty(stop - first, np.uint32), np.empty(stop - first, np.uint32)
    pages.read(first, stop, rows, counts)
    return rows.tolist(), counts.tolist()


@settings(max_examples=150, deadline=None)
@given(
    n_rows=st.integers(1, 3000),
    page=st.sampled_from([32, 100, 512, 5000]),
    highest=st.sampled_from([1, 2, 255, 70_000, 2**24 - 1, 2**32 - 1]),
    ascending=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_rows_are_those_that_pyarrow_reads(
    tmp_path_factory: pytest.TempPathFactory,
    n_rows: int,
    page: int,
    highest: int,
    ascending: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, highest, n_rows, endpoint=True).astype(np.uint32)
    counts = random.integers(0, highest, n_rows, endpoint=True).astype(np.uint32)
    rows = np.sort(rows) if ascending else rows
    path = written(tmp_path_factory.mktemp("pages") / "x.parquet", rows, counts, page)
    pages = GenePages.load(path)
    assert pages is not None and int(pages.starts[-1]) == n_rows
    first = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(first, n_rows))
    whole = pq.read_table(path)
    expected = [whole.column(name).to_pylist()[first:stop] for name in ("row", "count")]
    assert list(read(pages, first, stop)) == expected


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "_ROW_GROUP_SIZES", (64, 64))
    random = np.random.default_rng(0)
    lengths = random.integers(0, 90, 40)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.concatenate([np.sort(random.choice(500, n, replace=False)) for n in lengths])
    columns = Columns(
        starts=starts,
        rows=rows.astype(np.uint32),
        values=random.integers(1, 9, len(rows)).astype(np.uint32),
    )
    names = pa.array([f"G{i:03d}" for i in range(40)])
    write_gene_major(tmp_path / "expression", names, columns)
    pages = GenePages.load(tmp_path / "expression" / "0000.parquet")
    assert pages is not None and len(pages.genes) == -(-len(rows) // 64)
    for first, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        expected = [rows[first:stop].tolist(), columns.values[first:stop].tolist()]
        assert list(read(pages, first, stop)) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"use_dictionary": ["gene", "count"], "column_encoding": None},
        {"column_encoding": {"row": "PLAIN", "count": "PLAIN"}},
        {"write_statistics": False},
    ],
    ids=["codec", "dictionary", "plain", "no statistics"],
)
def test_a_file_of_another_make_has_no_pages(tmp_path: Path, options: dict[str, Any]) -> None:
    gene = pa.DictionaryArray.from_arrays(np.zeros(9, dtype=np.int32), ["G"])
    values = np.arange(9, dtype=np.uint32)
    ours: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": ["gene"],
        "column_encoding": {"row": "DELTA_BINARY_PACKED", "count": "BYTE_STREAM_SPLIT"},
    }
    fields = [pa.field("gene", gene.type, nullable=False)]
    fields += [pa.field(name, pa.uint32(), nullable=False) for name in ("row", "count")]
    table = pa.table([gene, values, values], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "ours.parquet", **ours)
    pq.write_table(table, tmp_path / "other.parquet", **(ours | options))
    assert GenePages.load(tmp_path / "ours.parquet") is not None
    assert GenePages.load(tmp_path / "other.parquet") is None


def test_bytes_that_changed_are_an_error(tmp_path: Path) -> None:
    rows = np.arange(1000, dtype=np.uint32)
    path = written(tmp_path / "x.parquet", rows, rows, 5000)
    pages = GenePages.load(path)
    assert pages is not None
    sound = path.read_bytes()
    at = int(pages.spans[0, 0])
    for place in range(at, at + int(pages.spans[0, 1])):
        changed = bytearray(sound)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            found = read(pages, 0, 1000)
        except DamageError as error:
            assert str(path) in str(error)
        else:  # the page's own checksum is not read: a file is hashed before its first use
            assert len(found[0]) == 1000
    path.write_bytes(sound[: at + 5])
    with pytest.raises(DamageError, match=r"x\.parquet"):
        read(pages, 0, 1000)
    with pytest.raises(DamageError, match=r"x\.parquet"):
        GenePages.load(path)
