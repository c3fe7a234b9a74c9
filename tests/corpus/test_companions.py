"""Modalities beside RNA: written, verified, queried, handed out, compacted, vacuumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.features import FeatureBatch
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.payload.companions import Companion
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.payload.writing import write_segment
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, DamageError, NoCellsError, QueryError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from .made_segments import (
    copied,
    files_of,
    made_batch,
    part_of,
    sealed,
    unnoticed,
    with_features,
)

N_CELLS = 30
TAGS = ("CD3", "CD19", "CD14", "IgG1")


def tags_of(seed: int, names: Any = TAGS, n_cells: int = N_CELLS) -> FeatureBatch:
    """Random counts of antibodies, in the order of `names`."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(1.5, (n_cells, len(names))).astype(np.uint32)
    matrix = sparse.csr_matrix(dense)
    var = {
        "feature_id": [f"{name}_id" for name in names],
        "name": list(names),
        "feature_type": ["Antibody Capture"] * len(names),
    }
    return FeatureBatch(
        var=pa.table(var),
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices.astype(np.int32),
        values=matrix.data.astype(np.uint32),
    )


def add_source(corpus: Corpus, name: str, seed: int, **features: FeatureBatch) -> SegmentRecord:
    batch = made_batch(N_CELLS, 20, seed=seed)
    record = write_segment(
        corpus.segments_folder / f"{name}-0",
        f"{name}-0",
        batch,
        pa.table({"gene_id": list(batch.gene_ids)}),
        pa.table({"cluster": ["k"] * N_CELLS}),
        pa.table({"barcode": pa.array([], pa.string())}),
        {
            "corpus_uuid": corpus.uuid,
            "source_id": name,
            "source_sha256": f"{seed:064d}",
            "first_row": 0,
        },
        features=features,
    )
    receipt = Receipt(
        source_id=name,
        uri=name,
        sha256=f"{seed:064d}",
        n_bytes=1,
        reader="h5mu",
        n_read=N_CELLS,
        n_kept=N_CELLS,
    )
    corpus.commit_source(receipt, [record])
    return record


@pytest.fixture
def cite(tmp_path: Path) -> Corpus:
    """Two CITE-seq sources of the same antibodies, one of others, one of RNA alone."""
    corpus = Corpus.create(tmp_path / "corpus")
    add_source(corpus, "a", 1, protein=tags_of(1))
    add_source(corpus, "b", 2, protein=tags_of(2, TAGS[::-1]))
    add_source(corpus, "c", 3, protein=tags_of(3, ("CD3", "CD56")))
    add_source(corpus, "d", 4)
    return Corpus.open(tmp_path / "corpus")


def expected(source: str, seed: int, names: Any = TAGS) -> set[tuple[str, str, str, int]]:
    """(source, barcode, feature, count), one by one."""
    batch = tags_of(seed, names)
    dense = batch.to_csr().toarray()
    return {
        (source, f"C{c}", f"{name}_id", int(dense[c, f]))
        for c in range(N_CELLS)
        for f, name in enumerate(names)
        if dense[c, f]
    }


def in_sql(corpus: Corpus) -> set[tuple[Any, ...]]:
    rows = corpus.sql(
        "SELECT source_id, barcode, feature_id, count FROM protein JOIN "
        "(SELECT cell_id, source_id, barcode FROM cells) USING (cell_id)"
    )
    assert len(set(map(str, rows.to_pylist()))) == rows.num_rows
    return {tuple(row.values()) for row in rows.to_pylist()}


EVERYTHING = expected("a", 1) | expected("b", 2, TAGS[::-1]) | expected("c", 3, ("CD3", "CD56"))


@settings(max_examples=25, deadline=None)
@given(
    dense=st.lists(
        st.lists(st.sampled_from([0, 0, 1, 2, 70_000]), min_size=3, max_size=3), max_size=8
    )
)
def test_a_companion_gives_back_what_was_written(
    dense: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    matrix = sparse.csr_matrix(np.array(dense, dtype=np.uint32).reshape(-1, 3))
    n_cells = len(dense)
    var = pa.table({"feature_id": ["z", "a", "m"], "genome": ["GRCh38", None, "GRCh38"]})
    given_ = FeatureBatch(
        var=var,
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices.astype(np.int32),
        values=matrix.data.astype(np.uint32),
    )
    batch = made_batch(n_cells, 5, seed=0) if n_cells else made_batch(1, 5, seed=0)
    if not n_cells:
        given_ = FeatureBatch(
            var=var,
            indptr=np.array([0, 0]),
            indices=given_.indices,
            values=given_.values,
        )
    folder = tmp_path_factory.mktemp("companion") / "s-0"
    record = with_features(folder, batch, atac=given_)
    assert verify_segment(folder, deep=True) == []
    rows = np.arange(batch.n_cells)[::-1]
    found = Companion(record, "atac").read(rows)
    assert found.feature_ids == ["a", "m", "z"]
    wanted = given_.to_csr().toarray()[::-1][:, [1, 2, 0]]
    assert found.to_csr().toarray().tolist() == wanted.tolist()
    table = Companion(record, "atac").features
    assert table.column("total").to_pylist() == wanted.sum(axis=0).tolist()
    assert table.column("n_cells").to_pylist() == (wanted > 0).sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"var": pa.table({"feature_id": ["a", "a"]})}, "a feature appears twice"),
        ({"values": np.array([1, 0], dtype=np.uint32)}, "stored count is 0"),
        ({"indices": np.array([1, 1], dtype=np.int32)}, "holds a feature twice"),
    ],
)
def test_features_that_contradict_themselves_are_refused(change: Any, message: str) -> None:
    sound = {
        "var": pa.table({"feature_id": ["a", "b"]}),
        "indptr": np.array([0, 2]),
        "indices": np.array([0, 1], dtype=np.int32),
        "values": np.array([1, 2], dtype=np.uint32),
    }
    with pytest.raises(CorpusError, match=message):
        FeatureBatch(**{**sound, **change}).canonical()


def test_sql_gives_each_count_with_its_cell_and_no_row_to_cells_that_were_not_measured(
    cite: Corpus,
) -> None:
    assert in_sql(cite) == EVERYTHING
    features = cite.sql("SELECT modality, feature_id, name, n_segments FROM features").to_pylist()
    assert [(f["feature_id"], f["n_segments"]) for f in features] == [
        ("CD14_id", 2),
        ("CD19_id", 2),
        ("CD3_id", 3),
        ("CD56_id", 1),
        ("IgG1_id", 2),
    ]
    assert cite.sql("SELECT count(*) AS n FROM atac")["n"].to_pylist() == [0]


def test_mudata_has_one_anndata_a_modality_and_its_own_cells(cite: Corpus) -> None:
    mdata = cite.to_mudata()
    assert list(mdata.mod) == ["rna", "protein"]
    assert mdata["rna"].n_obs == 120 and mdata["protein"].n_obs == 90
    assert set(mdata["protein"].obs_names) < set(mdata["rna"].obs_names)
    found = {
        (source, barcode, str(feature), int(count))
        for (source, barcode), row in zip(
            (name.split(":")[:2] for name in mdata["protein"].obs_names),
            mdata["protein"].X.toarray(),
            strict=True,
        )
        for feature, count in zip(mdata["protein"].var_names, row, strict=True)
        if count
    }
    assert found == EVERYTHING
    assert mdata["protein"].var.loc["CD3_id", "n_cells_measured"] == 90
    assert mdata["protein"].var.loc["CD56_id", "n_cells_measured"] == 30
    assert list(cite.to_mudata("source_id = 'd'").mod) == ["rna"]
    with pytest.raises(NoCellsError, match="has the modality 'atac'"):
        cite.to_mudata(modalities=["atac"])
    with pytest.raises(QueryError, match="no modality 'proteins'; did you mean 'protein'"):
        cite.to_mudata(modalities=["proteins"])


def test_compaction_mixes_only_segments_of_the_same_features_and_keeps_every_count(
    cite: Corpus,
) -> None:
    done = cite.compact(cells_per_segment=100)
    assert (done.n_before, done.n_after) == (2, 1)  # c has other antibodies, d has none
    after = Corpus.open(cite.folder)
    assert in_sql(after) == EVERYTHING
    assert after.verify(deep=True) == []


def test_a_vacuum_writes_the_living_cells_counts_anew(cite: Corpus) -> None:
    cite.delete("source_id = 'a' AND barcode IN ('C3', 'C4')")
    after = Corpus.open(cite.folder)
    left = {row for row in EVERYTHING if row[:2] not in {("a", "C3"), ("a", "C4")}}
    assert in_sql(after) == left
    after.vacuum(older_than_ms=0)
    after = Corpus.open(cite.folder)
    assert in_sql(after) == left and after.verify(deep=True) == []
    assert not (cite.folder / "segments" / "a-0").exists()


def test_every_flipped_bit_and_lost_file_of_a_companion_is_found(
    cite: Corpus, tmp_path: Path
) -> None:
    sound = cite.segments_folder / "a-0"
    assert len(part_of(sound, "protein")) > 8
    assert unnoticed(sound, "protein", tmp_path) == []


def test_forms_that_disagree_under_right_hashes_are_found(cite: Corpus, tmp_path: Path) -> None:
    other = cite.segments_folder / "b-0"
    for part in ("protein", "protein.parquet", "protein.zarr"):
        folder = copied(cite.segments_folder / "a-0", tmp_path / part)
        for name in files_of(other):
            if name == part or name.startswith(part + "/"):
                (folder / name).write_bytes((other / name).read_bytes())
        told = "\n".join(verify_segment(sealed(folder), deep=True))
        assert "protein" in told


def test_a_reader_is_told_of_a_missing_shard(cite: Corpus) -> None:
    next((cite.segments_folder / "a-0" / "protein.zarr/X/data/c").iterdir()).unlink()
    with pytest.raises(DamageError, match=r"protein\.zarr/X/data"):
        Corpus.open(cite.folder).to_mudata("source_id = 'a'")
