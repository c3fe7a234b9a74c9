from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from cytolake.corpus.payload.arrays import CountsReader
from cytolake.corpus.payload.segments import Segment
from cytolake.corpus.payload.verification import verify_segment

from .made_segments import (
    copied,
    damaged,
    files_of,
    flipped,
    made_batch,
    made_segment,
    record_sha256,
    retold,
    sealed,
)

LARGE = 90_000


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "s-0"
    return made_segment(folder, made_batch(60, 40, seed=1, highest=LARGE))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return copied(sound, tmp_path)


@pytest.mark.parametrize(("n_cells", "n_genes"), [(60, 40), (1, 1), (3, 0), (0, 5)])
def test_what_was_written_verifies(tmp_path: Path, n_cells: int, n_genes: int) -> None:
    folder = made_segment(tmp_path / "s-0", made_batch(n_cells, n_genes, seed=2))
    assert verify_segment(folder, deep=True, sha256=record_sha256(folder)) == []


def test_counts_that_cross_chunks_and_row_groups_verify(tmp_path: Path) -> None:
    batch = made_batch(700, 1500, seed=3, highest=LARGE)
    assert len(batch.counts) > 1 << 18
    assert verify_segment(made_segment(tmp_path / "s-0", batch), deep=True) == []


def test_a_single_fault_in_any_file_is_found(folder: Path) -> None:
    rng = np.random.default_rng(0)
    seal = record_sha256(folder)
    for name in files_of(folder):
        path = folder / name
        data = path.read_bytes()
        faults = [None, data[:-1], data + b"x"]
        faults += [
            flipped(data, int(rng.integers(len(data))), int(rng.integers(8))) for _ in range(3)
        ]
        for fault in faults:
            with damaged(path, fault):
                assert verify_segment(folder, deep=True, sha256=seal), (name, fault)
    assert verify_segment(folder, deep=True, sha256=seal) == []


def test_a_file_of_no_one_is_reported(folder: Path) -> None:
    (folder / "rna.zarr/X/data/c/1").write_bytes(b"x")
    assert verify_segment(folder) == []
    [problem] = verify_segment(folder, deep=True)
    assert "X/data/c/1 is no file of the segment" in problem


def test_a_segment_swapped_whole_for_another_sound_one_is_found(
    sound: Path, tmp_path: Path
) -> None:
    other = made_segment(tmp_path / "s-0", made_batch(60, 40, seed=9))
    assert verify_segment(other, deep=True) == []
    [problem] = verify_segment(other, sha256=record_sha256(sound))
    assert "other bytes than were committed" in problem


def swapped(values: list[Any]) -> list[Any]:
    return [values[0], values[2], values[1], *values[3:]]


def one_more(values: list[Any]) -> list[Any]:
    return [*values[:-1], values[-1] + 1]


LIES: dict[str, tuple[str, str, Callable[[list[Any]], Any], str]] = {
    "a total of a cell": ("cells.parquet", "n_counts_stored", one_more, "sum to"),
    "contents of two cells": ("cells.parquet", "content_hash", swapped, "are not those hashed"),
    "numbers of rows": ("cells.parquet", "row", swapped, "not numbered from 0"),
    "ids of cells": ("cells.parquet", "cell_id", swapped, "is not block << 24 | row"),
    "segment of a cell": ("cells.parquet", "segment", lambda v: ["x", *v[1:]], "another segment"),
    "source of a cell": ("cells.parquet", "source_id", lambda v: ["x", *v[1:]], "source_id than"),
    "denominators": ("cells.parquet", "n_counts", lambda v: [3 * x for x in v], "sketch in"),
    "barcode": ("cells.parquet", "barcode", swapped, "obs/barcode says otherwise"),
    "total of a gene": ("statistics.parquet", "total", swapped, "total of gene"),
    "sum of totals": ("statistics.parquet", "total", one_more, "segment.json says"),
    "cells of a gene": ("statistics.parquet", "n_cells", swapped, "n_cells of gene"),
    "order of genes": ("statistics.parquet", "gene_id", swapped, "do not ascend"),
    "symbols": ("statistics.parquet", "symbol", swapped, "var/symbol says otherwise"),
    "sketch": (
        "statistics.parquet",
        "bins",
        lambda v: [[b + 1 for b in bins] for bins in v],
        "sketch in",
    ),
    "lengths in the sketch": (
        "statistics.parquet",
        "n_values",
        lambda v: [n[:-1] for n in v],
        "not as many bins",
    ),
    "a count by gene": ("expression/0000.parquet", "count", one_more, "sketch in"),
    "a count of 0 by gene": ("expression/0000.parquet", "count", lambda v: [0, *v[1:]], "is 0"),
    "rows by gene": ("expression/0000.parquet", "row", swapped, "not ascend"),
    "a row beyond": ("expression/0000.parquet", "row", lambda v: [*v[:-1], 60], "expected below"),
    "genes by gene": ("expression/0000.parquet", "gene", lambda v: v[::-1], "not ascend"),
    "a gene of no one": ("expression/0000.parquet", "gene", lambda v: ["x", *v[1:]], "'x'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_table_that_contradicts_the_counts_is_found(folder: Path, lie: str) -> None:
    name, column, change, expected = LIES[lie]
    retold(folder, name, column, change)
    assert expected in "\n".join(verify_segment(sealed(folder), deep=True))


def test_a_row_that_the_expression_lacks_is_found(folder: Path) -> None:
    path = folder / "expression/0000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert verify_segment(sealed(folder), deep=True)


@pytest.mark.parametrize("name", ["obs", "dropped", "cells"])
def test_a_table_that_is_too_short_is_found(folder: Path, name: str) -> None:
    path = folder / f"{name}.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    found = "\n".join(verify_segment(sealed(folder), deep=True))
    assert f"{name}.parquet has" in found
    assert "rows, expected" in found


@pytest.mark.parametrize("said", [{"n_nonzero": 7}, {"total": 7}, {"n_genes": 7}, {"block": 7}])
def test_a_record_that_contradicts_the_parts_is_found(folder: Path, said: dict[str, int]) -> None:
    assert verify_segment(sealed(folder, **said), deep=True)


@pytest.mark.parametrize(
    ("array", "place", "value", "expected"),
    [
        ("data", 5, 0, "a stored count is 0"),
        ("data", 5, 77, "sum to"),
        ("indices", 1, 0, "do not ascend"),
        ("indices", 5, 40, "do not ascend"),
        ("indptr", 1, 1, "sum to"),
    ],
)
def test_an_array_that_contradicts_the_tables_is_found(
    folder: Path, array: str, place: int, value: int, expected: str
) -> None:
    zarr.open_array(folder / f"rna.zarr/X/{array}", mode="r+")[place] = value
    assert expected in "\n".join(verify_segment(sealed(folder), deep=True))


def test_two_counts_that_change_places_within_a_cell_are_found(folder: Path) -> None:
    data: Any = zarr.open_array(folder / "rna.zarr/X/data", mode="r+")
    values = data[:]
    place = int(np.flatnonzero(values[:-1] != values[1:])[0])
    indptr = CountsReader(folder / "rna.zarr", "s-0", 40).indptr
    assert place + 1 not in indptr
    data[place], data[place + 1] = int(values[place + 1]), int(values[place])
    assert "are not those hashed" in "\n".join(verify_segment(sealed(folder), deep=True))


def test_ids_that_were_kept_need_only_be_distinct(folder: Path) -> None:
    kept = {"cell_ids": "kept", "source_id": "several"}
    retold(folder, "cells.parquet", "cell_id", lambda ids: [1000 - 3 * i for i in range(len(ids))])
    assert verify_segment(sealed(folder, provenance=kept), deep=True) == []
    retold(folder, "cells.parquet", "cell_id", lambda ids: [*ids[:-1], ids[0]])
    [problem] = verify_segment(sealed(folder, provenance=kept), deep=True)
    assert "a cell_id appears twice" in problem


def test_the_blocks_that_verification_reads_are_the_counts(sound: Path) -> None:
    batch = made_batch(60, 40, seed=1, highest=LARGE)
    blocks = [
        (first, *map(np.array, pair)) for first, *pair in Segment.open(sound).counts.blocks(1)
    ]
    assert [first for first, *_ in blocks] == [0]
    assert blocks[0][1].tolist() == batch.indices.tolist()
    assert blocks[0][2].tolist() == batch.counts.tolist()


def test_a_table_without_its_column_is_a_problem_and_no_crash(folder: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), folder / "statistics.parquet")
    assert verify_segment(sealed(folder), deep=True)
