from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.log.receipts import Receipt
from cytolake.ingest.admission import Candidate, admit, check_replaced, find_files
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile
from cytolake.platform.errors import CorpusError, SourceError
from cytolake.platform.settings import Settings


class _Snapshot:
    """What `admit` reads of a snapshot: the receipts of its sources."""

    def __init__(self, *receipts: Receipt) -> None:
        self.accepted = [type("S", (), {"receipt": r, "snapshot": 4})() for r in receipts]


def candidate(name: str, sha256: Any, recipe: Any = "r", chosen: Any = None) -> Candidate:
    entry = SourceEntry(path=f"{name}.h5ad", name=chosen)
    return Candidate(entry=entry, source_id=name, sha256=sha256, recipe_hash=recipe)


def receipt(source_id: Any, sha256: Any, recipe: Any = "r") -> Receipt:
    return Receipt(source_id=source_id, uri="", sha256=sha256, n_bytes=1, reader="h5ad",
                   n_read=1, n_kept=1, recipe_hash=recipe)  # fmt: skip


def admitted(candidates: Any, *receipts: Any) -> list[Any]:
    snapshot: Any = _Snapshot(*receipts)
    admit(candidates, snapshot)
    return [c.outcome and c.outcome.status for c in candidates]


def test_the_second_of_two_equal_files_is_refused_and_the_first_goes_on():
    given = [candidate("a", "1"), candidate("b", "2"), candidate("c", "1")]
    assert admitted(given) == [None, None, "refused"]
    assert given[2].outcome is not None
    assert "given twice: it has the same bytes as a.h5ad" in str(given[2].outcome.error)


def test_a_source_that_is_there_is_not_read_again():
    given = [candidate("other-name", "1")]
    assert admitted(given, receipt("a", "1")) == ["present"]
    assert given[0].source_id == "a"


def test_the_same_file_under_another_recipe_is_refused():
    given = [candidate("a", "1", recipe="new")]
    assert admitted(given, receipt("a", "1", recipe="old")) == ["refused"]
    assert given[0].outcome is not None
    assert "is in the corpus as 'a', read with other settings" in str(given[0].outcome.error)


def test_a_name_that_is_taken_is_changed_unless_the_user_chose_it():
    plain = candidate("a", "222222222222")
    chosen = candidate("a", "3", chosen="a")
    assert admitted([plain, chosen], receipt("a", "1")) == [None, "refused"]
    assert plain.source_id == "a-22222222"


def test_a_missing_file_is_refused_and_the_rest_found(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x")
    plan = SourcesFile(
        source=(SourceEntry(path="nowhere.h5ad"), SourceEntry(path="a.csv")), folder=tmp_path
    )
    candidates = [Candidate(entry=entry) for entry in plan.source]
    find_files(candidates, plan, Settings(), gene_reference="g", staging=tmp_path / "staging")
    assert candidates[0].outcome is not None and candidates[0].outcome.status == "refused"
    assert candidates[0].source_id == "nowhere"
    assert candidates[1].path == tmp_path / "a.csv" and candidates[1].recipe_hash


@pytest.mark.parametrize("resource", ["no-such-resource"])
def test_a_missing_resource_is_refused(tmp_path: Path, resource: str):
    plan = SourcesFile(source=(SourceEntry(resource=resource),), folder=tmp_path)
    candidates = [Candidate(entry=entry) for entry in plan.source]
    settings, staging = Settings(home=tmp_path), tmp_path / "staging"
    find_files(candidates, plan, settings, gene_reference="g", staging=staging)
    assert candidates[0].outcome is not None and "no-such-resource" in str(
        candidates[0].outcome.error
    )


def replaced(candidates: Any, name: str, *receipts: Any) -> list[Any]:
    snapshot: Any = _Snapshot(*receipts)
    admit(candidates, snapshot, replaced=name)
    return [c.outcome and c.outcome.status for c in candidates]


def test_a_file_that_replaces_a_source_takes_its_name():
    given = [candidate("corrected", "2")]
    assert replaced(given, "a", receipt("a", "1"), receipt("b", "3")) == [None]
    assert given[0].source_id == "a"


def test_the_very_file_that_is_to_be_replaced_is_there():
    given = [candidate("corrected", "1")]
    assert replaced(given, "a", receipt("a", "1")) == ["present"]


def test_a_file_that_is_another_source_replaces_none():
    given = [candidate("corrected", "3")]
    assert replaced(given, "a", receipt("a", "1"), receipt("b", "3")) == ["refused"]
    assert "in the corpus as 'b'; in the place of 'a'" in str(given[0].outcome and given[0].outcome)


@pytest.mark.parametrize(
    ("names", "name", "error", "message"),
    [
        ([None], "blod", CorpusError, "no source 'blod' to replace; did you mean 'blood'"),
        ([None, None], "blood", SourceError, "2 sources are given to replace 'blood'"),
        (["lung"], "blood", SourceError, "called 'lung', but is to replace 'blood'"),
    ],
)
def test_only_one_file_replaces_a_source_that_is_there(
    names: list[str | None], name: str, error: Any, message: str
):
    plan = SourcesFile(source=tuple(SourceEntry(path="x.h5ad", name=n) for n in names))
    snapshot: Any = _Snapshot(receipt("blood", "1"), receipt("lung", "2"))
    with pytest.raises(error, match=message):
        check_replaced(name, plan, snapshot)
    check_replaced("blood", SourcesFile(source=(SourceEntry(path="x.h5ad"),)), snapshot)
