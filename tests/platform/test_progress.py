"""Progress: a bar on a terminal, a line now and then elsewhere."""

import io

import pytest
from cytolake.platform import progress as module
from cytolake.platform.progress import duration, progress
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


def test_what_was_done_before_counts_for_neither_rate_nor_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress("training", 1000, "steps", console=Console(file=io.StringIO())) as bar:
        now += 60  # workers start
        bar.start_from(900)
        now += 40
        bar.advance(20)
        assert bar.rate == pytest.approx(0.5)
    assert "920 of 1,000 steps, 0.50 steps/s, 3 min left" in capsys.readouterr().err


def test_a_line_that_matters_stays_on_a_terminal_and_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    with progress("training", 10, "steps", console=console) as bar:
        bar.start_from(4)
        bar.say("[step 4] was passed over")
    assert "[step 4] was passed over" in screen.getvalue() and "4/10" in screen.getvalue()
    with progress("training", 10, "steps", console=Console(file=io.StringIO())) as bar:
        bar.say("[step 4] was passed over")
    assert capsys.readouterr().err == "training: [step 4] was passed over\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 s"), (119, "119 s"), (130, "2 min"), (7100, "118 min"), (40_800, "11 h 20 min")],
)
def test_a_duration_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words
