"""A shell of SQL: questions line by line, until a `;`, and answers as tables. Knows no view's file.

On a terminal it has history and completion, by Python's own readline where there is one; elsewhere
it reads statements from standard input until its end, and keeps no history.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...platform.errors import CytolakeError, QueryError, did_you_mean
from ...platform.screen import remarks, results, table
from .answers import FORMS, hand_over
from .completion import DELIMITERS, Completer, split_statements, without_comments
from .sandbox import VIEWS

if TYPE_CHECKING:
    from ..store import Corpus

HISTORY_NAME = "sql_history"
ROWS_SHOWN = 500
"""Rows of an answer that a terminal is given; a file or a pipe gets all of them."""

_HISTORY_LENGTH = 2000
_PROMPT = "cytolake> "
_GOES_ON = "     ...> "
_HELP = """A question is a SELECT, on one line or several; a semicolon ends it.

  .help    this page
  .views   the views and their columns
  .quit    leave; Ctrl-D does, too

Tab completes views, columns, words of SQL and, between quotes, gene symbols.
Ctrl-C ends a question that is being typed or answered, and not the shell."""


class Shell:
    """Reads, asks, shows, until there is no more to read."""

    def __init__(
        self,
        ask: Callable[[str], pa.Table],
        cells: Iterable[str],
        *,
        title: str,
        form: str = "table",
        home: Path | None = None,
    ) -> None:
        """Prepare.

        Args:
            ask: answers one SELECT.
            cells: the columns of the view `cells`.
            title: what the answers are about; said first, on a terminal.
            form: of answers, as in `answers.hand_over`.
            home: the folder of the history; None for none.
        """
        self._ask, self._title, self._form = ask, title, form
        self._history = None if home is None else home / HISTORY_NAME
        self._completer = Completer(cells, self._symbols)
        self._pending, self._failed = "", False
        self._readline: Any = None
        self._matches: list[str] = []

    def run(self) -> int:
        """Answer what is asked.

        Returns:
            The exit status: 1 if a statement of a non-interactive session failed.
        """
        if sys.stdin.isatty() and sys.stdout.isatty():
            self._converse()
            return 0
        for line in sys.stdin:
            if not self._take(line, to_a_person=False):
                return int(self._failed)
        self._take(";", to_a_person=False)  # the last may do without
        return int(self._failed)

    def _converse(self) -> None:
        self._begin_readline()
        remarks().print(f"{self._title}. .help tells more; Ctrl-D leaves", markup=False)
        while True:
            try:
                line = input(_GOES_ON if self._pending else _PROMPT)
                if not self._take(f"{line}\n", to_a_person=True):
                    return
            except KeyboardInterrupt:
                self._pending = ""
                sys.stdout.write("\n")
            except EOFError:
                sys.stdout.write("\n")
                return

    def _take(self, line: str, *, to_a_person: bool) -> bool:
        """Take a line, answer what it ends, and tell whether to go on."""
        if not self._pending and line.lstrip().startswith("."):
            words = line.strip().rstrip(";").rstrip()
            self._remember(words)
            return self._command(words)
        statements, rest = split_statements(self._pending + line)
        self._pending = rest if without_comments(rest) else ""
        for statement in statements:
            asked = without_comments(statement)
            if asked:
                self._remember(f"{asked};")
                self._failed |= not self._answer(statement, to_a_person=to_a_person)
        if self._pending.lstrip().startswith("."):
            line, self._pending = self._pending, ""
            return self._take(line, to_a_person=to_a_person)
        return True

    def _answer(self, statement: str, *, to_a_person: bool) -> bool:
        """Ask, show, and tell whether that went well; no error and no Ctrl-C ends the shell."""
        began = time.perf_counter()
        try:
            answer = self._ask(statement)
            took_s = time.perf_counter() - began
            self._completer.learn(answer.column_names)
            self._show(answer, to_a_person=to_a_person)
        except CytolakeError as error:
            remarks().print("error: ", style="bold red", end="")
            remarks().print(str(error), markup=False, soft_wrap=True)
            return False
        except KeyboardInterrupt:
            if not to_a_person:
                raise
            remarks().print("stopped")
            return False
        if to_a_person:
            rows = "row" if answer.num_rows == 1 else "rows"
            remarks().print(f"{answer.num_rows:,} {rows}, {_duration(took_s)}", style="dim")
        return True

    def _show(self, answer: pa.Table, *, to_a_person: bool) -> None:
        if self._form != "table" or not to_a_person or answer.num_rows <= ROWS_SHOWN:
            hand_over(answer, self._form, None)
            return
        shown = answer.slice(0, ROWS_SHOWN).to_pylist()
        results().print(table(shown, answer.column_names))
        remarks().print(
            f"the first {ROWS_SHOWN:,} rows; all of them: `cytolake sql QUERY --output FILE`"
        )

    def _command(self, words: str) -> bool:
        """Do what a dot command says; tell whether to go on."""
        known = (".help", ".views", ".quit", ".exit")
        if words in (".quit", ".exit"):
            return False
        if words == ".help":
            results().print(_HELP, markup=False)
        elif words == ".views":
            rows = [
                {"view": view, "columns": ", ".join(self._completer.columns.get(view, ()))}
                for view in VIEWS
            ]
            results().print(table(rows))
        else:
            near = did_you_mean(words, known)
            remarks().print(f"there is no {words}{near}; .help tells more", markup=False)
            self._failed = True
        return True

    def _symbols(self) -> list[str]:
        with suppress(CytolakeError):
            found = self._ask("SELECT DISTINCT symbol FROM genes WHERE symbol IS NOT NULL")
            return found.column("symbol").to_pylist()
        return []

    # ------------------------------------------------------------------ readline

    def _begin_readline(self) -> None:
        try:
            import readline
        except ImportError:  # Windows: no history and no completion, and all else
            return
        self._readline = readline
        readline.set_completer(self._complete)
        readline.set_completer_delims(DELIMITERS)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        readline.set_auto_history(False)
        if self._history is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_CREAT | os.O_RDWR, 0o600))
            self._history.chmod(0o600)  # one that was there before
            readline.clear_history()
            readline.read_history_file(self._history)
            if readline.get_current_history_length() > _HISTORY_LENGTH:
                readline.set_history_length(_HISTORY_LENGTH)
                readline.write_history_file(self._history)
        except OSError as error:
            remarks().print(f"no history: {error}", markup=False)
            self._history = None

    def _remember(self, line: str) -> None:
        if self._readline is None:
            return
        readline = self._readline
        n_held = readline.get_current_history_length()
        if n_held and readline.get_history_item(n_held) == line:
            return
        readline.add_history(line)
        if self._history is not None:
            with suppress(OSError):  # the disk says no: the question is answered all the same
                readline.append_history_file(1, self._history)

    def _complete(self, word: str, number: int) -> str | None:
        """As readline asks: the matches of a word one by one, then None."""
        if number == 0:
            typed = self._readline.get_line_buffer()[: self._readline.get_begidx()]
            self._matches = self._completer.complete(self._pending + typed, word)
        return self._matches[number] if number < len(self._matches) else None


def shell_of(corpus: "Corpus", *, form: str, home: Path) -> Shell:
    """A shell over an open corpus.

    Args:
        corpus: at its snapshot.
        form: of answers.
        home: the folder of the history.

    Raises:
        QueryError: no such form.
    """
    if form not in FORMS:
        raise QueryError(f"format {form!r}: expected {', '.join(FORMS)}")
    return Shell(
        corpus.sql,
        [*(field.name for field in corpus.state.columns), "is_primary"],
        title=f"{corpus.uri}, snapshot {corpus.snapshot}",
        form=form,
        home=home,
    )


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.2f} s"
