"""Progress: a bar on a terminal, a line now and then elsewhere."""

import io

import pytest
from cytolake.platform import progress as module
from cytolake.platform.progress import progress
from rich.console import Console


def test_a_terminal_sees_title_unit_and_note() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    with progress("reading", 100, "cells", console=console) as bar:
        bar.advance(100)
        bar.note("loss 2.5")
    assert "reading" in screen.getvalue() and "100/100" in screen.getvalue()
    assert "cells/s" in screen.getvalue() and "loss 2.5" in screen.getvalue()


def test_elsewhere_a_line_comes_only_after_the_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = Console(file=io.StringIO())
    with progress("reading", 100, "cells", console=quiet) as bar:
        bar.advance(1)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(module, "LINE_INTERVAL_S", 0.0)
        bar.advance(49)
    line = capsys.readouterr().err
    assert line.startswith("reading: 50 of 100 cells") and "s left" in line
