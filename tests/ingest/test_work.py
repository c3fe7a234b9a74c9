import json
from pathlib import Path

from cytolake.ingest.work import carry_out, fingerprint


def test_a_folder_is_its_names_and_bytes(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("x")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "b")
    assert fingerprint(tmp_path / "one")[0] != fingerprint(tmp_path / "two")[0]


def test_whatever_goes_wrong_is_an_answer(tmp_path: Path):
    task = {"source": 3, "path": str(tmp_path / "nothing")}
    answer = json.loads(carry_out({"work": "fingerprint", "task": json.dumps(task)})["result"])
    assert answer["source"] == 3
    assert answer["error"].startswith(f"{tmp_path / 'nothing'}: went away while it was read")
    task = {"source": 3, "path": "no\0path"}
    answer = json.loads(carry_out({"work": "fingerprint", "task": json.dumps(task)})["result"])
    assert "cannot be read: ValueError" in answer["error"]
