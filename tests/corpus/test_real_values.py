"""A modality of real values: zero and sign are data, and not measured is never 0."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.features import ABUNDANCE, FeatureBatch
from cytolake.corpus.payload.companions import Companion, check_parts
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, DamageError
from hypothesis import given, settings
from hypothesis import strategies as st

from .made_segments import (
    copied,
    made_batch,
    part_of,
    retold,
    sealed,
    unnoticed,
    with_features,
)
from .test_companions import add_source, tags_of

N_CELLS = 30
NAN = float("nan")


def values_of(dense: Any, names: Any) -> FeatureBatch:
    """A batch of what is not NaN."""
    dense = np.asarray(dense, dtype=np.float32).reshape(-1, len(names))
    measured = ~np.isnan(dense)
    return FeatureBatch(
        var=pa.table({"feature_id": list(names)}),
        indptr=np.concatenate([[0], np.cumsum(measured.sum(axis=1))]).astype(np.int64),
        indices=np.nonzero(measured)[1].astype(np.int32),
        values=dense[measured],
    )


def made_values(seed: int, n_cells: int = N_CELLS, n_features: int = 3) -> Any:
    random = np.random.default_rng(seed)
    dense = random.normal(0, 2, (n_cells, n_features)).astype(np.float32)
    dense[random.random(dense.shape) < 0.2] = np.nan
    dense[random.random(dense.shape) < 0.2] = 0
    dense[4] = np.nan
    return dense


@settings(max_examples=25, deadline=None)
@given(
    dense=st.lists(
        st.lists(
            st.one_of(
                st.just(NAN), st.just(0.0), st.just(-0.0), st.floats(-(2.0**99), 2.0**99, width=32)
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_was_written_comes_back_to_the_bit(
    dense: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    batch = made_batch(len(dense), 5, seed=0)
    folder = tmp_path_factory.mktemp("values") / "s-0"
    record = with_features(folder, batch, **{ABUNDANCE: values_of(dense, ["z", "a", "m"])})
    assert verify_segment(folder, deep=True) == []
    found = Companion(record, ABUNDANCE).read(np.arange(len(dense))[::-1])
    assert found.feature_ids == ["a", "m", "z"]
    back = np.full((len(dense), 3), np.nan, dtype=np.float32)
    for row in range(len(dense)):
        for place in range(found.indptr[row], found.indptr[row + 1]):
            back[row, found.indices[place]] = found.values[place]
    wanted = np.array(dense, dtype=np.float32)[::-1][:, [1, 2, 0]]
    assert (np.isnan(back) == np.isnan(wanted)).all()
    measured = ~np.isnan(wanted)
    assert (back.view(np.uint32) == wanted.view(np.uint32))[measured].all()
    assert found.to_csr().nnz == measured.sum()  # stored zeros stay stored
    features = Companion(record, ABUNDANCE).features
    assert features.column("n_cells").to_pylist() == measured.sum(axis=0).tolist()
    assert "total" not in features.column_names


@pytest.fixture
def lake(tmp_path: Path) -> Corpus:
    """Two sources of the same proteins, one of others, one of antibodies, in one corpus."""
    corpus = Corpus.create(tmp_path / "corpus")
    for name, seed, names in (("a", 1, "PQR"), ("b", 2, "RQP"), ("c", 3, "PST")):
        add_source(corpus, name, seed, **{ABUNDANCE: values_of(made_values(seed), names)})
    add_source(corpus, "d", 4, protein=tags_of(4))
    return Corpus.open(tmp_path / "corpus")


def expected() -> set[tuple[str, str, str, float]]:
    """(source, barcode, feature, value), one by one."""
    return {
        (source, f"C{cell}", names[place], float(value))
        for source, seed, names in (("a", 1, "PQR"), ("b", 2, "RQP"), ("c", 3, "PST"))
        for cell, row in enumerate(made_values(seed))
        for place, value in enumerate(row)
        if not np.isnan(value)
    }


def in_sql(corpus: Corpus) -> set[tuple[Any, ...]]:
    rows = corpus.sql(
        "SELECT source_id, barcode, feature_id, value FROM protein_abundance JOIN "
        "(SELECT cell_id, source_id, barcode FROM cells) USING (cell_id)"
    )
    return {tuple(row.values()) for row in rows.to_pylist()}


def test_sql_gives_every_measured_value_zeros_among_them_and_nothing_else(lake: Corpus) -> None:
    assert in_sql(lake) == expected()
    schema = lake.sql("SELECT * FROM protein_abundance").schema
    names = ["cell_id", "segment", "row", "feature_id", "name", "value"]
    assert schema.names == names and schema.field("value").type == pa.float32()
    empty = lake.sql("SELECT * FROM protein_abundance WHERE value IS NULL OR isnan(value)")
    assert empty.num_rows == 0


def test_a_corpus_without_values_has_an_empty_view(fake_corpus: Corpus) -> None:
    found = fake_corpus.sql("SELECT value FROM protein_abundance")
    assert found.num_rows == 0 and found.schema.field("value").type == pa.float32()


@pytest.mark.filterwarnings("ignore:.*pull_on_update.*")
def test_mudata_is_dense_with_nan_where_nothing_was_measured(lake: Corpus) -> None:
    mdata = lake.to_mudata()
    assert list(mdata.mod) == ["rna", "protein", ABUNDANCE]
    mod = mdata[ABUNDANCE]
    assert isinstance(mod.X, np.ndarray) and mod.n_obs == 3 * (N_CELLS - 1)  # C4 has no value
    found = {
        (*name.split(":")[:2], str(feature), float(value))
        for name, row in zip(mod.obs_names, mod.X, strict=True)
        for feature, value in zip(mod.var_names, row, strict=True)
        if not np.isnan(value)
    }
    assert found == expected()
    n_of = {name: sum(row[2] == name for row in expected()) for name in "PQRST"}
    assert mod.var["n_cells_measured"].to_dict() == n_of
    assert list(lake.to_mudata("barcode = 'C4' AND source_id = 'a'").mod) == ["rna"]


def test_compaction_and_vacuum_keep_every_value(lake: Corpus) -> None:
    done = lake.compact(cells_per_segment=100)
    assert (done.n_before, done.n_after) == (2, 1)  # c has other proteins, d has none
    after = Corpus.open(lake.folder)
    assert in_sql(after) == expected() and after.verify(deep=True) == []
    after.delete("source_id = 'b' AND barcode IN ('C3', 'C7')")
    Corpus.open(lake.folder).vacuum(older_than_ms=0)
    left = {row for row in expected() if row[:2] not in {("b", "C3"), ("b", "C7")}}
    thinned = Corpus.open(lake.folder)
    assert in_sql(thinned) == left and thinned.verify(deep=True) == []


def test_every_flipped_bit_and_lost_file_is_found(lake: Corpus, tmp_path: Path) -> None:
    sound = lake.segments_folder / "a-0"
    assert len(part_of(sound, ABUNDANCE)) > 8
    assert unnoticed(sound, ABUNDANCE, tmp_path) == []


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("value", lambda old: [v + 1 for v in old], "hold other counts"),
        ("value", lambda old: [-v for v in old], "hold other counts"),
        ("value", lambda old: [NAN, *old[1:]], "not finite"),
        ("row", lambda old: old[::-1], "do not ascend"),
    ],
)
def test_an_index_that_says_otherwise_under_right_hashes_is_found(
    lake: Corpus, tmp_path: Path, column: str, change: Any, message: str
) -> None:
    folder = copied(lake.segments_folder / "a-0", tmp_path)
    retold(folder, f"{ABUNDANCE}/0000.parquet", column, change)
    assert message in "\n".join(verify_segment(sealed(folder), deep=True))


def test_a_reader_is_told_of_a_missing_shard(lake: Corpus) -> None:
    next((lake.segments_folder / "a-0" / f"{ABUNDANCE}.zarr/X/data/c").iterdir()).unlink()
    with pytest.raises(DamageError, match=rf"{ABUNDANCE}\.zarr/X/data"):
        Corpus.open(lake.folder).to_mudata("source_id = 'a'")


def test_numbers_of_another_kind_are_refused(lake: Corpus) -> None:
    with pytest.raises(CorpusError, match="protein holds float32, expected uint32"):
        add_source(lake, "e", 5, protein=values_of(made_values(5), "PQR"))
    with pytest.raises(CorpusError, match="protein_abundance holds uint32, expected float32"):
        add_source(lake, "f", 6, **{ABUNDANCE: tags_of(6)})
    wrong = values_of(made_values(7), "PQR")
    wrong.values[3] = np.inf
    with pytest.raises(CorpusError, match="not finite: leave out what was not measured"):
        add_source(lake, "g", 7, **{ABUNDANCE: wrong})


def test_a_segment_with_parts_of_a_newer_cytolake_is_not_written_anew(
    lake: Corpus, tmp_path: Path
) -> None:
    sound = lake.segments_folder / "a-0"
    check_parts(SegmentRecord.load(sound))
    folder = copied(sound, tmp_path)
    (folder / "splicing.parquet").write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"holds splicing\.parquet, which this cytolake does not"):
        check_parts(SegmentRecord.load(sealed(folder)))
