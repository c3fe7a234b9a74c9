"""Deletions and annotations held against a plain table, and against writers beside them."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from cytolake.corpus.change.annotation import annotate
from cytolake.corpus.change.deletion import delete, withdraw
from cytolake.corpus.log.chain import load_table
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import NoCellsError
from cytolake.platform.faults import watching
from cytolake.tests.faults.commands import ingest_source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COLUMNS = ("source_id", "barcode", "cell_type", "donor_id", "n_counts")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blood and lung: 96 cells in 4 segments."""
    folder = tmp_path_factory.mktemp("untouched") / "corpus"
    corpus = Corpus.create(folder)
    ingest_source(corpus, "blood")
    ingest_source(corpus, "lung")
    return folder


@pytest.fixture
def folder(untouched: Path, tmp_path: Path) -> Path:
    shutil.copytree(untouched, tmp_path / "corpus")
    return tmp_path / "corpus"


def rows_of(folder: Path) -> Any:
    chosen = ", ".join(COLUMNS)
    table = Corpus.open(folder).sql(f"SELECT {chosen} FROM cells ORDER BY ALL").to_pandas()
    return table.astype(object).where(table.notna(), None)


def labels(folder: Path, where: str, **values: Any) -> pa.Table:
    """Values for the cells that a condition chooses now."""
    keys = Corpus.open(folder).sql(f"SELECT source_id, barcode FROM cells WHERE {where}")
    for name, value in values.items():
        keys = keys.append_column(name, pa.array([value] * keys.num_rows))
    return keys


# ---------------------------------------------------------------------- a table as the model

CONDITIONS: dict[str, Callable[[Any], Any]] = {
    "source_id = 'blood'": lambda t: t["source_id"] == "blood",
    "cell_type = 'T cell'": lambda t: t["cell_type"] == "T cell",
    "cell_type IS NULL": lambda t: t["cell_type"].isna(),
    "donor_id IN ('lung-d1', 'moved')": lambda t: t["donor_id"].isin(["lung-d1", "moved"]),
    "n_counts % 3 = 0": lambda t: t["n_counts"].astype(int) % 3 == 0,
    "barcode LIKE '%-7'": lambda t: t["barcode"].str.endswith("-7"),
}
VALUES = {"cell_type": ["T cell", "NK cell", None], "donor_id": ["moved", "lung-d1"]}

deletions = st.tuples(st.just("delete"), st.sampled_from(list(CONDITIONS)))
annotations = st.tuples(
    st.just("annotate"), st.sampled_from(list(CONDITIONS)), st.sampled_from(list(VALUES))
).flatmap(lambda said: st.tuples(*map(st.just, said), st.sampled_from(VALUES[said[2]])))


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.one_of(deletions, annotations), min_size=1, max_size=4))
def test_any_sequence_of_changes_gives_what_a_plain_table_gives(
    changes: Sequence[Any], untouched: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model") / "corpus"
    shutil.copytree(untouched, folder)
    model = rows_of(folder)
    for kind, where, *more in changes:
        chosen = CONDITIONS[where](model)
        if kind == "delete":
            done = delete(folder, where)
            assert done.n_cells == chosen.sum()
            model = model[~chosen]
        elif chosen.any():
            name, value = more
            given = labels(folder, where).append_column(
                name, pa.array([value] * int(chosen.sum()), pa.string())
            )
            changed = annotate(folder, given, origin="sql")
            assert changed.n_cells == chosen.sum()
            differs = chosen & (model[name] != value) & (value is not None)
            assert changed.n_changed == differs.sum()
            model.loc[differs, name] = value
        found = rows_of(folder)
        expected = model.sort_values(list(COLUMNS[:2])).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert Corpus.open(folder).verify(deep=True) == []
    shutil.rmtree(folder.parent)


# ---------------------------------------------------------------------- two writers


def change_donors(folder: Path) -> None:
    """Give the first donors' cells to others, by a table that was made before any deletion."""
    table = pa.table(
        {
            "source_id": ["blood"] * 24,
            "barcode": [f"blood-0-{number}" for number in range(24)],
            "donor_id": [f"new-{number % 2}" for number in range(24)],
        }
    )
    annotate(folder, table, origin="donors.csv")


def delete_donor(folder: Path) -> None:
    delete(folder, "donor_id IN ('blood-d1', 'blood-d2', 'new-0')")


def withdraw_type(folder: Path) -> None:
    withdraw(folder, "cell_type = 'B cell' OR donor_id = 'blood-d1'", "consent ended")


CHANGES: dict[str, Callable[[Path], None]] = {
    "annotate": change_donors,
    "delete": delete_donor,
    "withdraw": withdraw_type,
}
PAIRS = [(first, second) for first in CHANGES for second in CHANGES if first != second]


def in_turn(untouched: Path, names: Sequence[str], place: Path) -> list[Any]:
    """The rows after some changes, one after the other."""
    copy = place / "-".join(names)
    shutil.copytree(untouched, copy)
    for name in names:
        CHANGES[name](copy)
    return rows_of(copy).values.tolist()


@pytest.mark.parametrize(("loser", "winner"), PAIRS)
def test_a_change_that_loses_is_made_anew_from_the_new_version(
    folder: Path, untouched: Path, tmp_path: Path, loser: str, winner: str
) -> None:
    came: list[str] = []

    def another_comes_first(point: str) -> None:
        if point == "before cells/commit" and not came:
            came.append(point)
            CHANGES[winner](folder)

    with watching(another_comes_first):
        CHANGES[loser](folder)
    kinds = [record.kind for record in load_table(folder / "cells").records]
    assert kinds[-2:] == [winner, loser]
    assert rows_of(folder).values.tolist() == in_turn(untouched, (winner, loser), tmp_path)
    assert Corpus.open(folder).verify(deep=True) == []
    files = {path.name for path in (folder / "cells").glob("*.parquet")}
    named = {
        name
        for version in range(len(kinds))
        for name in load_table(folder / "cells", version).files
    }
    assert files == named, "no file is left that no version names"


@pytest.mark.slow
@pytest.mark.parametrize("names", [("annotate", "delete"), ("delete", "withdraw")])
def test_two_processes_at_once_give_what_some_order_gives(
    folder: Path, untouched: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, __file__, name, str(folder), str(tmp_path / "go")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    assert [child.wait() for child in children] == [0, 0]
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    outcomes = [in_turn(untouched, order, tmp_path) for order in (names, names[::-1])]
    assert rows_of(folder).values.tolist() in outcomes
    assert Corpus.open(folder).verify(deep=True) == []


@pytest.mark.slow
def test_a_deletion_beside_a_busy_ingest_lands(folder: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    busy = subprocess.Popen(
        [sys.executable, __file__, "ingest", str(folder), str(stop)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert busy.stdout is not None
        for _ in range(3):
            assert busy.stdout.readline() == "committed\n"
        done = delete(folder, "source_id = 'blood'")
        table = labels(folder, "source_id = 'lung'", donor_id="moved")
        annotated = annotate(folder, table, origin="sql")
        assert busy.poll() is None, "it was busy all the time"
        assert busy.stdout.readline() == "committed\n", "and goes on"
    finally:
        stop.touch()
        busy.communicate()
    assert busy.returncode == 0
    assert (done.n_cells, annotated.n_changed) == (48, 48)
    records = load_table(folder / "cells").records
    assert [r.kind for r in records if r.kind != "ingest"] == ["created", "delete", "annotate"]
    n_sources = sum(record.kind == "ingest" for record in records) - 1
    assert len(rows_of(folder)) == 48 * n_sources
    assert Corpus.open(folder).verify(deep=True) == []


def test_cells_that_are_all_deleted_meanwhile_are_no_longer_annotated(folder: Path) -> None:
    table = labels(folder, "source_id = 'blood'", donor_id="moved")
    came: list[str] = []

    def another_comes_first(point: str) -> None:
        if point == "before cells/commit" and not came:
            came.append(point)
            delete(folder, "source_id = 'blood'")

    with watching(another_comes_first), pytest.raises(NoCellsError, match="none of the 48 rows"):
        annotate(folder, table, origin="sql")
    assert load_table(folder / "cells").version == 3


def main(name: str, folder: Path, signal: Path) -> None:
    """What a child process does: one change at a signal, or sources until a signal."""
    if name != "ingest":
        print("ready", flush=True)
        while not signal.exists():
            time.sleep(0.001)
        CHANGES[name](folder)
        return
    number = 0
    while not signal.exists():
        ingest_source(Corpus.open(folder), f"small-{number}")
        number += 1
        print("committed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
