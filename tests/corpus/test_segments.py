import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.payload.arrays import CHUNK, CountsReader, write_counts
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.segments import Segment
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.schema import FORMAT
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, DamageError, NewerFormatError
from hypothesis import given, settings
from hypothesis import strategies as st

from .made_segments import made_batch, made_segment


@pytest.fixture
def segment_folder(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path):
    return build_fake_corpus(tmp_path / "corpus").segments_folder / "lung-0"


@pytest.fixture(scope="session")
def reader_and_matrix(tmp_path_factory: pytest.TempPathFactory):
    """400 cells that span several chunks, some of them without any count."""
    rng = np.random.default_rng(3)
    matrix = rng.integers(1, 90_000, (400, 1500)) * (rng.random((400, 1500)) < 0.7)
    matrix[[0, 17, 399]] = 0
    rows, indices = np.nonzero(matrix)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=400))]).astype(np.int64)
    folder = tmp_path_factory.mktemp("arrays") / "rna.zarr"
    write_counts(
        folder,
        segment_id="s",
        indptr=indptr,
        indices=indices.astype(np.int32),
        counts=matrix[rows, indices].astype(np.uint32),
        n_genes=1500,
        obs={"barcode": [str(i) for i in range(400)]},
        var={"gene_id": [str(i) for i in range(1500)]},
    )
    assert len(indices) > 3 * CHUNK
    return CountsReader(folder, "s", 1500), matrix


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 399), max_size=40))
def test_rows_come_back_in_any_order(
    reader_and_matrix: tuple[CountsReader, Any], rows: list[int]
) -> None:
    reader, matrix = reader_and_matrix
    indptr, indices, counts = reader.read(np.array(rows, dtype=np.int64))
    for i, row in enumerate(rows):
        dense = np.zeros(matrix.shape[1], dtype=np.int64)
        dense[indices[indptr[i] : indptr[i + 1]]] = counts[indptr[i] : indptr[i + 1]]
        assert (dense == matrix[row]).all()


def test_counts_beyond_16_bits_are_neither_clipped_nor_rounded(fake_corpus: Corpus) -> None:
    batch = fake_corpus.read(fake_corpus.select("barcode = 'GGG'"))[0]
    assert batch.counts.tolist() == [70_000]


def test_arrays_are_as_narrow_as_the_counts_allow(fake_corpus: Corpus) -> None:
    dtypes = {
        name: json.loads(
            (fake_corpus.segments_folder / name / "rna.zarr/X/data/zarr.json").read_text()
        )["data_type"]
        for name in ("blood-0", "lung-0")
    }
    assert dtypes == {"blood-0": "uint16", "lung-0": "uint32"}


def test_the_group_is_anndata_that_anyone_can_open(fake_corpus: Corpus) -> None:
    adata = anndata.read_zarr(fake_corpus.segments_folder / "blood-0/rna.zarr")
    counts: Any = adata.X
    assert counts.toarray().tolist() == [[2, 4, 0, 1, 0], [1, 0, 0, 0, 2], [3, 0, 5, 0, 0]]
    assert adata.obs_names.tolist() == ["AAA", "AAC", "AAG"]
    assert adata.var["symbol"].tolist() == ["ACTB", "CD3D", "MS4A1", "MT-CO1", "MIR21"]


def test_genes_given_in_any_order_are_stored_ascending(
    fake_corpus: Corpus, fake_batch: Callable[[str], CellBatch], tmp_path: Path
) -> None:
    from cytolake.corpus.payload.writing import write_segment

    batch = fake_batch("blood")
    reversed_genes = replace(
        batch, gene_ids=batch.gene_ids[::-1], indices=(4 - batch.indices).astype(np.int32)
    )
    var = pa.table({"gene_id": list(reversed_genes.gene_ids)})
    write_segment(
        tmp_path / "s",
        "s",
        reversed_genes,
        var,
        pa.table({"x": [1, 2, 3]}),
        pa.table({"barcode": pa.array([], pa.string())}),
        {"corpus_uuid": "u", "source_id": "a", "source_sha256": "b", "first_row": 0},
    )
    mirrored = Segment.open(tmp_path / "s")
    original = Segment.open(fake_corpus.segments_folder / "blood-0")
    assert mirrored.gene_ids.tolist() == original.gene_ids.tolist()
    for ours, theirs in zip(mirrored.read(np.arange(3)), original.read(np.arange(3)), strict=True):
        assert ours.tolist() == theirs.tolist()
    hashes = [s.record.cells().column("content_hash").to_pylist() for s in (mirrored, original)]
    assert hashes[0] == hashes[1]


def test_expression_is_sorted_by_gene_then_row(fake_corpus: Corpus) -> None:
    path = fake_corpus.segments_folder / "blood-0/expression/0000.parquet"
    table = pq.read_table(path)
    pairs = list(zip(table["gene"].to_pylist(), table["row"].to_pylist(), strict=True))
    assert pairs == sorted(pairs)
    assert table["count"].to_pylist() == [2, 1, 3, 4, 5, 1, 2]


def test_files_are_frozen_and_accounted_for(segment_folder: Path) -> None:
    record = SegmentRecord.load(segment_folder)
    found = {p for p in segment_folder.rglob("*") if p.is_file()}
    assert found == {segment_folder / n for n in record.files} | {segment_folder / "segment.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o444}
    assert verify_segment(segment_folder, deep=True) == []


@pytest.mark.parametrize(
    "name",
    ["rna.zarr/X/data/c/0", "rna.zarr/X/indices/c/0", "obs.parquet", "expression/0000.parquet"],
)
def test_a_missing_file_is_named_and_never_read_as_zeros(segment_folder: Path, name: str) -> None:
    (segment_folder / name).unlink()
    with pytest.raises(DamageError, match=f"{name} is missing"):
        Segment.open(segment_folder)
    assert len(verify_segment(segment_folder)) == 1


def test_a_truncated_file_is_named(segment_folder: Path) -> None:
    path = segment_folder / "rna.zarr/X/data/c/0"
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    with pytest.raises(DamageError, match=f"has {len(data) - 1} bytes, {len(data)} were written"):
        Segment.open(segment_folder)


@pytest.mark.parametrize("array", ["data", "indices"])
def test_a_flipped_bit_in_counts_raises_when_it_is_read(segment_folder: Path, array: str) -> None:
    path = segment_folder / f"rna.zarr/X/{array}/c/0"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(DamageError, match=f"X/{array}/c/0: chunk 0 is not what was written"):
        Segment.open(segment_folder).read(np.arange(3))
    assert "other bytes" in verify_segment(segment_folder, deep=True)[0]


def test_arrays_of_another_segment_are_refused(segment_folder: Path) -> None:
    other = segment_folder.with_name("blood-0") / "rna.zarr/X/data/zarr.json"
    mine = segment_folder / "rna.zarr/X/data/zarr.json"
    swapped = json.loads(mine.read_text())
    swapped["attributes"]["cytolake.segment"] = json.loads(other.read_text())["attributes"][
        "cytolake.segment"
    ]
    mine.chmod(0o644)
    mine.write_text(json.dumps(swapped))
    with pytest.raises(DamageError, match="of segment 'blood-0', expected 'lung-0'"):
        CountsReader(segment_folder / "rna.zarr", "lung-0", 3)


def test_a_segment_without_its_last_file_is_not_whole(segment_folder: Path) -> None:
    (segment_folder / "segment.json").unlink()
    assert "not whole" in verify_segment(segment_folder)[0]


def test_a_newer_segment_is_refused_by_name(segment_folder: Path) -> None:
    path = segment_folder / "segment.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    with pytest.raises(NewerFormatError, match=f"format {FORMAT + 1}"):
        Segment.open(segment_folder)


def test_what_a_killed_writer_left_does_not_stand_in_the_way(
    fake_corpus: Corpus, prepare_source: Callable[..., Any], tmp_path: Path
) -> None:
    from cytolake.corpus.store import Corpus

    corpus = Corpus.create(tmp_path / "corpus")
    half = corpus.segments_folder / "blood-0"
    half.mkdir()
    (half / "obs.parquet").write_bytes(b"half")
    _, [record] = prepare_source(corpus, "blood")
    assert verify_segment(record.folder, deep=True) == []
    _, [again] = prepare_source(corpus, "blood")
    assert again == record  # the whole one is adopted, its block of ids with it
    assert [path.name for path in corpus.segments_folder.iterdir()] == ["blood-0"]


def test_provenance_that_lacks_the_source_is_refused(
    fake_batch: Callable[[str], CellBatch], tmp_path: Path
) -> None:
    from cytolake.corpus.payload.writing import write_segment

    empty = pa.table({"x": [1, 2, 3]})
    with pytest.raises(CorpusError, match="lacks 'corpus_uuid'"):
        write_segment(tmp_path / "s", "s", fake_batch("blood"), empty, empty, empty, {})


def test_deep_verification_finds_a_file_swapped_for_one_of_equal_size(segment_folder: Path) -> None:
    path = segment_folder / "obs.parquet"
    data = bytearray(path.read_bytes())
    data[10] ^= 255
    path.chmod(0o644)
    path.write_bytes(data)
    assert verify_segment(segment_folder) == []
    assert "obs.parquet has other bytes" in verify_segment(segment_folder, deep=True)[0]
    shutil.rmtree(segment_folder)


def test_cells_that_are_given_in_another_order_of_genes_stay_as_they_are(tmp_path: Path) -> None:
    batch = made_batch(12, 9, seed=3)
    turned = replace(batch, gene_ids=batch.gene_ids[::-1].copy())
    before = (turned.indices.copy(), turned.counts.copy())
    made_segment(tmp_path / "s-0", turned)
    assert (turned.indices == before[0]).all() and (turned.counts == before[1]).all()
