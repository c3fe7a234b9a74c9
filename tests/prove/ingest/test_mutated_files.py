"""500 mutated real files: each is refused in words, or lands as a second reader reads it."""

import os
from collections import Counter
from pathlib import Path

import pytest
from cytolake.tests.faults.mutation_campaign import BAD, run

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

N_MUTATIONS, SEED = 500, 0
RESOURCES = os.environ.get("CYTOLAKE_RESOURCES", "").split(os.pathsep)[0]


@pytest.mark.skipif(not RESOURCES, reason="CYTOLAKE_RESOURCES is not set: no real files at hand")
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # written on purpose: old stores exist
def test_no_mutated_file_crashes_an_ingest_or_lands_with_a_wrong_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = run(tmp_path / "mutations", Path(RESOURCES), N_MUTATIONS, SEED)
    assert [outcome.mutation.number for outcome in outcomes] == list(range(N_MUTATIONS))
    bad = {str(o.mutation): (o.became, o.said) for o in outcomes if o.became in BAD}
    assert not bad
    bare = {str(o.mutation): o.said for o in outcomes if o.is_bare}
    assert not bare
    became = Counter(outcome.became for outcome in outcomes)
    assert min(became[name] for name in ("refused", "as before", "as it stands")) > 0
    with capsys.disabled():
        print(f"\n{N_MUTATIONS} mutated real files: {dict(became)}")
