"""The shell of SQL, as a person types it on a terminal, and as a script feeds it."""

import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from cytolake.corpus.query.completion import (
    COLUMNS,
    Completer,
    is_in_text,
    split_statements,
    without_comments,
)
from cytolake.corpus.store import Corpus
from hypothesis import given
from hypothesis import strategies as st

PATIENCE_S = 60
"""How long a test waits for a word on the screen before it fails."""

PROMPT = "cytolake> "
LONG = "SELECT sum(a.range % 7 * b.range) FROM range(100000000) a, range(100000000) b;"
Run = Callable[..., tuple[int, str, str]]  # `run` of conftest.py


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1"], " SELECT 2"),
        ("SELECT ';'; ", ["SELECT ';'"], " "),
        ("SELECT 'it''s;' ;", ["SELECT 'it''s;'"], ""),
        ("SELECT E'it\\';' ;", ["SELECT E'it\\';'"], ""),
        ('SELECT 1 AS "a;b";', ['SELECT 1 AS "a;b"'], ""),
        ("SELECT 1 -- one; two\n;", ["SELECT 1 -- one; two"], ""),
        ("SELECT /* ; */ 1;", ["SELECT /* ; */ 1"], ""),
        ("SELECT $$ ; $$;", ["SELECT $$ ; $$"], ""),
        ("SELECT $a$ ; $$ $a$;", ["SELECT $a$ ; $$ $a$"], ""),
        ("SELECT 'open; ", [], "SELECT 'open; "),
        ("SELECT 1 /* open; ", [], "SELECT 1 /* open; "),
        (";;", ["", ""], ""),
    ],
)
def test_a_semicolon_ends_a_statement_where_it_stands_in_nothing(
    text: str, statements: list[str], rest: str
) -> None:
    assert split_statements(text) == (statements, rest)


@given(st.lists(st.sampled_from(["';'", "1", '"a;b"', "/*;*/", "--;\n", "$$;$$", " "])))
def test_what_is_split_line_by_line_is_what_is_split_at_once(pieces: list[str]) -> None:
    text = "".join(f"SELECT {piece};\n" for piece in pieces)
    found: list[str] = []
    rest = ""
    for line in text.splitlines(keepends=True):
        statements, rest = split_statements(rest + line)
        found += statements
    assert (found, rest) == split_statements(text)
    assert len(found) == len(pieces)


def test_a_statement_is_remembered_on_one_line_without_its_comments() -> None:
    assert without_comments("SELECT 1 -- of Jane\n  AS a /* x */\n") == "SELECT 1 AS a"
    assert without_comments(" -- nothing\n /* ; */ ") == ""
    assert without_comments("SELECT '-- no;  comment'") == "SELECT '-- no;  comment'"


def test_only_a_text_that_is_open_is_completed_as_one() -> None:
    assert is_in_text("WHERE symbol = 'CD") and is_in_text("IN ('A', '")
    assert not is_in_text("WHERE symbol = 'CD3D' AND ") and not is_in_text('"sym')
    assert not is_in_text("-- it's\n SELECT ")


@pytest.fixture
def completer() -> Completer:
    return Completer(["cell_id", "cell_type"], lambda: ["CD3D", "CD3E", "cd1", "HLA-A", "HLA-B"])


@pytest.mark.parametrize(
    ("before", "word", "found"),
    [
        ("SELECT ", "cell_t", ["cell_type"]),
        ("SELECT c FROM ", "expr", ["expression"]),
        ("", "SEL", ["SELECT"]),
        ("", "sel", ["select"]),
        ("SELECT * FROM expression e WHERE e", "expression.sy", ["expression.symbol"]),
        ("SELECT ", "e.symb", ["e.symbol"]),
        ("WHERE symbol = '", "CD3", ["CD3D", "CD3E"]),
        ("WHERE symbol = '", "cd", ["cd1", "CD3D", "CD3E"]),
        ("WHERE symbol IN ('CD3D', '", "HLA-", ["HLA-A", "HLA-B"]),
        ("WHERE symbol = 'CD3D' AND ", "CD3", []),
        ("SELECT ", "tumou", []),
    ],
)
def test_a_word_is_completed_by_what_may_stand_there(
    completer: Completer, before: str, word: str, found: list[str]
) -> None:
    assert completer.complete(before, word) == found


def test_columns_of_an_answer_are_completed_from_then_on(completer: Completer) -> None:
    completer.learn(["tumour_stage", "count(*)"])
    assert completer.complete("SELECT ", "tumou") == ["tumour_stage"]
    assert completer.complete("SELECT ", "count(") == ["count("]


@pytest.mark.parametrize("view", COLUMNS)
def test_the_columns_known_by_heart_are_the_views_own(fake_corpus: Corpus, view: str) -> None:
    found = fake_corpus.sql(f'SELECT * FROM "{view}" LIMIT 0').column_names
    assert set(COLUMNS[view]) <= set(found)


# ------------------------------------------------------------------ no terminal


@pytest.fixture
def script(fake_corpus: Corpus, tmp_path: Path) -> Callable[..., Any]:
    def ask(text: str, *words: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "cytolake", "sql", "--corpus", fake_corpus.uri, *words],
            input=text,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "CYTOLAKE_HOME": str(tmp_path / "home")},
        )

    return ask


def test_a_script_is_answered_to_its_end_and_leaves_no_history(
    script: Callable[..., Any], tmp_path: Path
) -> None:
    done = script("SELECT count(*)\nAS n FROM cells;\n\nSELECT 'a;b' AS t")
    assert done.returncode == 0 and done.stderr == ""
    assert "| 6 |" in done.stdout and "| a;b |" in done.stdout
    assert not (tmp_path / "home").exists()


def test_a_scripts_error_is_told_and_the_rest_answered(script: Callable[..., Any]) -> None:
    done = script(
        "SELECT nope FROM cells;\n.vews\nSELECT 7 AS n; .quit\nSELECT 8 AS n;", "--format", "csv"
    )
    assert done.returncode == 1
    assert "error: there is no column 'nope'" in done.stderr
    assert "did you mean '.views'" in done.stderr
    assert done.stdout == '"n"\n7\n'


def test_options_that_a_shell_does_not_have_are_told(
    run: Run, fake_corpus: Corpus, tmp_path: Path
) -> None:
    status, _, said = run("sql", "--corpus", fake_corpus.uri, "--output", tmp_path / "a.csv")
    assert status == 1 and "--output goes with a query" in said
    status, _, said = run("sql", "--corpus", fake_corpus.uri, "--format", "cvs")
    assert status == 1 and "expected table, csv" in said


# ------------------------------------------------------------------ a terminal


class Terminal:
    """A person at a terminal: types, and waits for what is shown."""

    def __init__(self, corpus: Corpus, home: Path) -> None:
        self.pid, self._screen = pty.fork()
        if not self.pid:
            os.environ |= {"CYTOLAKE_HOME": str(home), "TERM": "dumb", "COLUMNS": "200"}
            words = ["-m", "cytolake", "sql", "--corpus", corpus.uri]
            os.execv(sys.executable, [sys.executable, *words])
        self.shown = ""

    def wait_for(self, text: str) -> str:
        """What was shown since the last wait, up to and with the text."""
        while text not in self.shown and select.select([self._screen], [], [], PATIENCE_S)[0]:
            try:
                self.shown += os.read(self._screen, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        assert text in self.shown, self.shown
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def ask(self, text: str) -> str:
        """Type a line and give what is shown until the next prompt."""
        self.type(f"{text}\n")
        return self.wait_for(PROMPT)

    def leave(self) -> int:
        """Wait for the shell's end; its exit status."""
        status = os.waitpid(self.pid, 0)[1]
        os.close(self._screen)
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def open_terminal(fake_corpus: Corpus, tmp_path: Path) -> Generator[Callable[[], Terminal]]:
    opened: list[Terminal] = []

    def open_one() -> Terminal:
        opened.append(Terminal(fake_corpus, tmp_path / "home"))
        opened[-1].wait_for(PROMPT)
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.kill()


def test_a_session_asks_stumbles_completes_and_leaves(
    open_terminal: Callable[[], Terminal], tmp_path: Path
) -> None:
    terminal = open_terminal()
    answer = terminal.ask("SELECT barcode FROM cells WHERE donor_id = 'd4';")
    assert "GGG" in answer and "1 row, " in answer and " ms" in answer
    terminal.type("SELECT count(*) AS n\n")
    terminal.wait_for("...> ")
    assert "| 6 |" in terminal.ask("FROM cells;")
    assert "did you mean 'donor_id'" in terminal.ask("SELECT donorid FROM cells;")
    assert "Tab completes" in terminal.ask(".help")
    assert "gene_id, symbol, biotype" in terminal.ask(".views")
    assert "did you mean '.views'" in terminal.ask(".view")
    terminal.type("SELECT biot\t FROM genes WHERE symbol = 'mir\t;\n")  # readline closes the quote
    assert "| miRNA" in terminal.wait_for(PROMPT)
    terminal.type(".quit\n")
    assert terminal.leave() == 0
    history = tmp_path / "home/sql_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    lines = history.read_text().splitlines()
    assert "SELECT count(*) AS n FROM cells;" in lines
    assert "SELECT biotype FROM genes WHERE symbol = 'MIR21';" in lines


def test_the_history_of_before_is_at_hand(open_terminal: Callable[[], Terminal]) -> None:
    first = open_terminal()
    first.ask("SELECT 40 + 2 AS answer;")
    first.type("\x04")
    assert first.leave() == 0
    second = open_terminal()
    assert "| 42" in second.ask("\x10").replace("     ", " ")  # Ctrl-P: the line before


def test_ctrl_c_ends_the_question_and_not_the_shell(open_terminal: Callable[[], Terminal]) -> None:
    terminal = open_terminal()
    terminal.type("SELECT half of a\n")
    terminal.wait_for("...> ")
    time.sleep(0.5)  # readline shows its prompt a moment before it listens
    terminal.type("\x03")
    terminal.wait_for(PROMPT)
    terminal.type(f"{LONG}\n")
    terminal.wait_for(LONG)
    time.sleep(0.5)  # the query has begun
    terminal.type("\x03")
    assert "stopped" in terminal.wait_for(PROMPT)
    assert "| 1 |" in terminal.ask("SELECT 1 AS n;").replace("  ", " ")
