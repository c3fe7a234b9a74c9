"""Compaction: what is mixed, what is not, that nothing changes but the place, and its races."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.change.annotation import annotate
from cytolake.corpus.change.deletion import delete
from cytolake.corpus.medians import medians_of
from cytolake.corpus.payload.own_columns import fit_together, in_columns, join, plain, same
from cytolake.corpus.store import Corpus
from cytolake.corpus.upkeep import compaction, remaking
from cytolake.corpus.upkeep.compaction import commit_prepared, compact, plan_compaction
from cytolake.corpus.upkeep.mixing import mixed_order
from cytolake.corpus.upkeep.remaking import prepare
from cytolake.corpus.upkeep.vacuum import vacuum
from cytolake.platform.errors import CorpusError, DamageError
from cytolake.platform.faults import watching
from cytolake.tests.faults.commands import ingest_source
from cytolake.tests.faults.killing import State, state_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def three(tmp_path: Path) -> Corpus:
    """Three sources of two segments of 24 cells each; skin lifts a column of its own."""
    corpus = Corpus.create(tmp_path / "corpus")
    for name in ("blood", "lung"):
        ingest_source(corpus, name)
    ingest_source(corpus, "skin", lifted="region")
    return Corpus.open(tmp_path / "corpus")


def held(corpus: Corpus) -> tuple[object, ...]:
    """All that must not change: rows of every view but places, counts, ids."""
    state: State = state_of(corpus)
    rows = {view: rows for view, rows in state.rows.items() if view != "measured"}
    return rows, set(state.rows["measured"]), state.counts, state.ids


def test_a_compaction_changes_the_place_of_cells_and_nothing_else(three: Corpus) -> None:
    before = held(three)
    done = compact(three.folder, cells_per_segment=100)
    after = Corpus.open(three.folder)
    assert (done.n_before, done.n_after, done.n_cells) == (6, 2, 144)
    assert held(after) == before
    assert after.verify(deep=True) == []
    assert len(after.state.segments) == 2


def test_medians_genes_and_anndata_are_the_same_after_a_compaction(three: Corpus) -> None:
    delete(three.folder, "donor_id = 'lung-d1'")
    before = Corpus.open(three.folder)
    compact(three.folder, cells_per_segment=100)
    after = Corpus.open(three.folder)
    totals = "SELECT gene_id, symbol, n_cells, total FROM genes ORDER BY gene_id"
    assert before.sql(totals).equals(after.sql(totals))
    medians = [medians_of(corpus, corpus.select()) for corpus in (before, after)]
    assert medians[0].digest == medians[1].digest
    one, two = (corpus.to_anndata() for corpus in (before, after))
    ids = [adata.obs["cell_id"].to_numpy() for adata in (one, two)]
    order = [np.argsort(names) for names in ids]
    assert ids[0][order[0]].tolist() == ids[1][order[1]].tolist()
    dense = [a.X.toarray()[o] for a, o in zip((one, two), order, strict=True)]
    assert one.var_names.tolist() == two.var_names.tolist()
    assert (dense[0] == dense[1]).all()


def test_neighbouring_rows_are_a_mixture_of_the_sources(three: Corpus) -> None:
    compact(three.folder, cells_per_segment=1000)
    corpus = Corpus.open(three.folder)
    sources = corpus.sql('SELECT source_id FROM cells ORDER BY "row"').column(0).to_pylist()
    assert all(len(set(sources[start : start + 24])) == 3 for start in range(0, 144, 24))


def test_the_order_is_a_permutation_that_the_names_decide() -> None:
    order = mixed_order(100, ["a", "b"])
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == mixed_order(100, ["a", "b"]).tolist()
    assert order.tolist() != mixed_order(100, ["a", "c"]).tolist()


def test_dead_rows_are_left_out_and_dropped_cells_keep_their_source(three: Corpus) -> None:
    delete(three.folder, "cell_type = 'T cell'")
    before = held(Corpus.open(three.folder))
    compact(three.folder, cells_per_segment=1000)
    after = Corpus.open(three.folder)
    assert held(after) == before
    [entry] = after.state.segments.values()
    assert (entry.n_cells, entry.n_dropped) == (96, 6)
    assert entry.sources == ("blood", "lung", "skin")


def test_a_second_compaction_finds_nothing_to_do(three: Corpus) -> None:
    compact(three.folder, cells_per_segment=100)
    done = compact(three.folder, cells_per_segment=100)
    assert done.snapshot is None
    assert plan_compaction(Corpus.open(three.folder).state, cells_per_segment=100) == []


def test_large_segments_without_dead_rows_are_let_be(three: Corpus) -> None:
    assert plan_compaction(three.state, cells_per_segment=48) == []
    delete(three.folder, "barcode = 'blood-0-3'")
    now = Corpus.open(three.folder).state
    assert plan_compaction(now, cells_per_segment=24) == [("blood-0",)]


def test_a_panel_and_other_genes_are_never_mixed_in(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    corpus = build_fake_corpus(tmp_path / "corpus")  # lung is a panel of three genes
    assert plan_compaction(corpus.state) == []
    with pytest.raises(CorpusError, match="list different genes"):
        prepare(corpus.folder, ["blood-0", "lung-0"])


def test_a_panel_of_the_same_genes_is_not_mixed_with_others(
    prepare_source: Callable[..., Any], tmp_path: Path
) -> None:
    corpus = Corpus.create(tmp_path / "corpus")
    corpus.commit_source(*prepare_source(corpus, "blood"))
    corpus.commit_source(
        *prepare_source(corpus, "blood", source_id="panel", sha256="c" * 64, panel=True)
    )
    assert plan_compaction(Corpus.open(corpus.folder).state) == []


@pytest.mark.parametrize("size, small", [(0, None), (10, 6), (10, -1)], ids=str)
def test_impossible_sizes_are_refused(three: Corpus, size: int, small: int | None) -> None:
    with pytest.raises(CorpusError, match="cells_per_segment is"):
        plan_compaction(three.state, cells_per_segment=size, small=small)


def test_a_prepared_segment_is_adopted(three: Corpus) -> None:
    [group] = plan_compaction(three.state, cells_per_segment=1000)
    prepared = prepare(three.folder, group)
    assert prepared is not None and not prepared.adopted
    done = compact(three.folder, cells_per_segment=1000)
    assert (done.n_after, done.n_adopted) == (1, 1)


def test_a_prepared_segment_of_wrong_bytes_is_made_anew(three: Corpus) -> None:
    before = held(three)
    [group] = plan_compaction(three.state, cells_per_segment=1000)
    prepared = prepare(three.folder, group)
    assert prepared is not None and prepared.segment is not None
    path = three.segments_folder / prepared.segment / "obs.parquet"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert compact(three.folder, cells_per_segment=1000).n_adopted == 0
    assert held(Corpus.open(three.folder)) == before


def test_a_damaged_input_stops_the_compaction_and_nothing_is_changed(three: Corpus) -> None:
    path = next((three.segments_folder / "lung-1/rna.zarr/X/data/c").iterdir())
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamageError, match="lung-1"):
        compact(three.folder, cells_per_segment=1000)
    assert Corpus.open(three.folder).snapshot == three.snapshot


def test_a_segment_that_is_not_equal_to_its_inputs_is_not_used(
    three: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    backwards = pa.array(range(143, -1, -1))
    monkeypatch.setattr(remaking, "join", lambda tables: join(tables).take(backwards))
    with pytest.raises(DamageError, match="not equal to the segments it was made of"):
        compact(three.folder, cells_per_segment=1000)
    assert Corpus.open(three.folder).snapshot == three.snapshot
    assert len(list(three.segments_folder.iterdir())) == 6


def test_cells_deleted_while_a_compaction_commits_stay_deleted(three: Corpus) -> None:
    [group] = plan_compaction(three.state, cells_per_segment=1000)
    prepared = prepare(three.folder, group)
    assert prepared is not None
    delete(three.folder, "cell_type = 'B cell'")
    expected = held(Corpus.open(three.folder))
    version, fitting = commit_prepared(three.folder, [prepared])
    assert version is not None and fitting.n_cells == 96
    after = Corpus.open(three.folder)
    assert held(after) == expected
    assert after.verify(deep=True) == []


def test_what_is_annotated_while_a_compaction_commits_stays(three: Corpus) -> None:
    [group] = plan_compaction(three.state, cells_per_segment=1000)
    prepared = prepare(three.folder, group)
    assert prepared is not None
    ids = three.sql("SELECT cell_id FROM cells WHERE source_id = 'lung'").column("cell_id")
    annotate(three.folder, pa.table({"cell_id": ids, "note": ["seen"] * 48}), origin="a test")
    expected = held(Corpus.open(three.folder))
    assert commit_prepared(three.folder, [prepared])[0] is not None
    assert held(Corpus.open(three.folder)) == expected


def test_a_group_whose_segments_went_is_planned_anew(three: Corpus) -> None:
    first = prepare(three.folder, ["blood-0", "lung-0"])
    second = prepare(three.folder, ["blood-0", "skin-0"])
    assert first is not None and second is not None
    before = held(three)
    assert commit_prepared(three.folder, [first])[0] is not None
    version, fitting = commit_prepared(three.folder, [second])
    assert version is None and fitting.redo == (second,)
    assert prepare(three.folder, ["blood-0", "skin-0"]) is None
    assert held(Corpus.open(three.folder)) == before


def test_the_same_result_of_two_compactions_lands_once(three: Corpus) -> None:
    group = ["blood-0", "lung-0"]
    one, two = prepare(three.folder, group), prepare(three.folder, group)
    assert one is not None and two is not None
    assert commit_prepared(three.folder, [one])[0] is not None
    version, fitting = commit_prepared(three.folder, [two])
    assert version is None and fitting.there == (two,)


def test_a_writer_that_comes_in_before_the_commit_is_not_lost(three: Corpus) -> None:
    came: list[str] = []

    def come_in(point: str) -> None:
        if point == "before cells/commit" and not came:
            came.append(point)
            delete(three.folder, "barcode = 'skin-1-5'")

    with watching(come_in):
        compact(three.folder, cells_per_segment=1000)
    after = Corpus.open(three.folder)
    assert after.sql("SELECT count(*) FROM cells").column(0).to_pylist() == [143]
    assert after.verify(deep=True) == []
    assert len(after.state.segments) == 1


_RACER = """
import sys
from pathlib import Path
from cytolake.corpus.upkeep.compaction import compact
from cytolake.corpus.change.deletion import delete
folder = Path(sys.argv[2])
if sys.argv[1] == "compact":
    compact(folder, cells_per_segment=100)
else:
    for number in range(0, 24, 6):
        delete(folder, f"barcode = 'blood-0-{number}'")
"""


def test_two_compactions_and_a_deleter_in_processes_of_their_own(three: Corpus) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, what, str(three.folder)])
        for what in ("compact", "compact", "delete")
    ]
    assert [racer.wait(120) for racer in racers] == [0, 0, 0]
    after = Corpus.open(three.folder)
    assert after.verify(deep=True) == []
    gone = {("blood", f"blood-0-{number}") for number in range(0, 24, 6)}
    ids = {name: cell_id for name, cell_id in state_of(three).ids.items() if name not in gone}
    assert state_of(after).ids == ids
    assert sum(entry["kind"] == "compact" for entry in after.log()) >= 1
    assert len(after.state.segments) == 2


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (pa.array([1], pa.int32()), pa.array([2], pa.int64()), pa.int64()),
        (pa.array([1], pa.uint8()), pa.array([2], pa.int8()), pa.int64()),
        (pa.array([0.5], pa.float32()), pa.array([2.0]), pa.float64()),
        (pa.nulls(1), pa.array(["x"]), pa.string()),
        (pa.array(["x"]).dictionary_encode(), pa.array(["y"]), pa.string()),
    ],
    ids=["integers", "unsigned", "decimals", "nothing", "categories"],
)
def test_own_columns_are_joined_under_a_type_that_holds_both(
    one: pa.Array, other: pa.Array, kind: pa.DataType
) -> None:
    tables = [pa.table({"Age": one}), pa.table({"age": other, "more": [1]})]
    assert fit_together(table.schema for table in tables)
    found = join(tables)
    assert found.schema.field("Age").type == kind
    assert found.column("Age").to_pylist() == one.to_pylist() + other.to_pylist()
    assert found.column("more").to_pylist() == [None, 1]
    assert same(found.slice(0, 1), in_columns(tables[0], found.schema))


def test_own_columns_of_types_that_do_not_fit_are_not_joined() -> None:
    tables = [pa.table({"age": [1]}), pa.table({"age": ["old"]})]
    assert not fit_together(table.schema for table in tables)
    with pytest.raises(CorpusError, match="do not fit"):
        join(tables)
    assert not fit_together([pa.schema([("a", "int8"), ("A", "int8")]), pa.schema([])])


def test_the_same_is_told_bit_by_bit() -> None:
    nan = pa.table({"x": [float("nan"), None, 1.0]})
    assert same(nan, pa.table({"x": [float("nan"), None, 1.0]}))
    assert not same(nan, pa.table({"x": [float("nan"), 0.0, 1.0]}))
    words = pa.table({"x": pa.array(["a", "b"]).dictionary_encode()})
    assert same(plain(words), pa.table({"x": ["a", "b"]}))


CHANGES = ("ingest", "delete", "annotate", "compact", "vacuum")
Change = tuple[str, int]


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["ingest", "delete", "annotate", "compact", "vacuum"]),
            st.integers(0, 5),
        ),
        min_size=2,
        max_size=7,
    )
)
def test_any_changes_in_any_order_keep_cells_what_a_model_says(changes: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "corpus"
        corpus = Corpus.create(folder)
        ingest_source(corpus, "blood")
        model = _cells_of(folder)
        for number, (change, draw) in enumerate(changes):
            if change == "ingest":
                ingest_source(Corpus.open(folder), f"s{number}")
                came = {k: v for k, v in _cells_of(folder).items() if k not in model}
                assert len(came) == 48 and {v[0] for v in came.values()} == {f"s{number}"}
                model |= came
            elif change == "delete":
                delete(folder, f"barcode LIKE '%-0-%{draw}'")
                model = {k: v for k, v in model.items() if not _matches(str(v[1]), draw)}
            elif change == "annotate":
                chosen = [k for k in sorted(model) if k % 6 == draw]
                if chosen:
                    values = [f"note-{number}"] * len(chosen)
                    table = pa.table({"cell_id": chosen, "disease": values})
                    annotate(folder, table, origin="a test")
                    model |= {k: (*model[k][:3], f"note-{number}", *model[k][4:]) for k in chosen}
            elif change == "compact":
                compact(folder, cells_per_segment=30 + 40 * draw)
            else:
                vacuum(folder, older_than_ms=0, grace_ms=0)
            assert _cells_of(folder) == model
        assert Corpus.open(folder).verify(deep=True) == []


def _matches(barcode: str, digit: int) -> bool:
    return "-0-" in barcode and barcode.endswith(str(digit))


def _cells_of(folder: Path) -> dict[int, tuple[object, ...]]:
    """cell_id -> source, barcode, donor, disease, own column, its counts by gene."""
    corpus = Corpus.open(folder)
    rows = corpus.sql(
        "SELECT c.cell_id, c.source_id, c.barcode, c.donor_id, c.disease, o.cluster, e.counts "
        "FROM cells c JOIN source_obs o USING (cell_id) LEFT JOIN (SELECT cell_id, "
        "list((gene_id, count) ORDER BY gene_id) AS counts FROM expression GROUP BY cell_id) e "
        "USING (cell_id)"
    )
    columns = [column.to_pylist() for column in rows.columns]
    return {row[0]: (*row[1:-1], repr(row[-1])) for row in zip(*columns, strict=True)}


def test_batches_of_a_commit_are_bounded(monkeypatch: pytest.MonkeyPatch, three: Corpus) -> None:
    before = held(three)
    monkeypatch.setattr(compaction, "_CELLS_PER_COMMIT", 1)
    done = compact(three.folder, cells_per_segment=100)
    log = Corpus.open(three.folder).log()
    assert [entry["kind"] for entry in log[:3]] == ["compact", "compact", "ingest"]
    assert (done.n_before, done.n_after) == (6, 2)
    assert held(Corpus.open(three.folder)) == before
