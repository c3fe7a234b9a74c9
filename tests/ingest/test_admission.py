from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.receipts import Receipt
from cytolake.ingest.admission import Candidate, admit, find_files
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile
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
    find_files(candidates, plan, Settings(), gene_reference="g")
    assert candidates[0].outcome is not None and candidates[0].outcome.status == "refused"
    assert candidates[0].source_id == "nowhere"
    assert candidates[1].path == tmp_path / "a.csv" and candidates[1].recipe_hash


@pytest.mark.parametrize("resource", ["no-such-resource"])
def test_a_missing_resource_is_refused(tmp_path: Path, resource: str):
    plan = SourcesFile(source=(SourceEntry(resource=resource),), folder=tmp_path)
    candidates = [Candidate(entry=entry) for entry in plan.source]
    find_files(candidates, plan, Settings(home=tmp_path), gene_reference="g")
    assert candidates[0].outcome is not None and "no-such-resource" in str(
        candidates[0].outcome.error
    )
