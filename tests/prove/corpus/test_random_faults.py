"""400 random single faults over all kinds of files: each is found, and none gets a number wrong."""

from collections import Counter
from pathlib import Path

import pytest
from cytolake.tests.faults.campaign import run

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]

N_FAULTS, SEED = 400, 0
# Losing or changing them loses nothing: a log is read as well without them.
HINTS = {
    "cells log: last checkpoint",
    "sources log: last checkpoint",
    "cells log: checkpoint",
    "sources log: checkpoint",
    "cells: what is newest",
    "sources: what is newest",
    "mark",
}


def test_no_random_fault_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = run(tmp_path / "faults", N_FAULTS, SEED)
    assert [outcome.fault.number for outcome in outcomes] == list(range(N_FAULTS))
    silent = {str(o.fault): o.wrong for o in outcomes if o.is_silent}
    assert not silent
    unseen = [o for o in outcomes if not o.found]
    assert {outcome.fault.kind for outcome in unseen} <= HINTS, list(map(str, unseen))
    with capsys.disabled():
        harmless = Counter(o.fault.kind for o in outcomes if o.is_harmless)
        n_told = sum(bool(o.told) for o in outcomes)
        n_found = len(outcomes) - len(unseen)
        print(f"\n{N_FAULTS} faults: {n_found} found by verify --deep, {n_told} met by readers")
        print(f"  0 silent; {harmless.total()} harmless, in hints: {dict(harmless)}")
