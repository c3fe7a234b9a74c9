"""Lines that grow, and lines that were torn."""

import json
from pathlib import Path

from cytolake.train.lines import Tail, add_line, rows_of


def test_what_is_added_after_a_torn_line_begins_on_a_line_of_its_own(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    add_line(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2, "lo')  # a kill, or a disk that was full
    tail = Tail(path)
    assert tail.lines() == [{"n": 1}]
    add_line(path, {"n": 3})
    assert tail.lines() == [None, {"n": 3}]
    assert rows_of(path) == [{"n": 1}, {"n": 3}]


def test_a_whole_line_whose_end_alone_is_missing_is_not_lost(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"n": 1}))
    add_line(path, {"n": 2})
    assert rows_of(path) == [{"n": 1}, {"n": 2}]


def test_bytes_that_are_no_json_and_no_text_are_passed_over_and_counted(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'\x00\xff\n{"n": 1}\n\n[1]\n7\n{"n": 2}\n')
    assert Tail(path).lines() == [None, {"n": 1}, None, None, None, {"n": 2}]
    assert rows_of(tmp_path / "nothing.jsonl") == []
