from itertools import pairwise

from cytolake.ingest.admission import Candidate
from cytolake.ingest.pipeline import BYTES_AT_ONCE, SOURCES_AT_ONCE, waves
from cytolake.ingest.sources_toml import SourceEntry
from hypothesis import given, settings
from hypothesis import strategies as st


def candidates(sizes: list[int]) -> list[Candidate]:
    return [Candidate(entry=SourceEntry(path=f"{i}.h5ad"), n_bytes=n) for i, n in enumerate(sizes)]


@settings(deadline=None)  # a busy machine may take its time
@given(st.lists(st.sampled_from([1, 2**32, 2**33, BYTES_AT_ONCE, 2**40]), max_size=200))
def test_waves_hold_each_source_once_in_order_within_their_bounds(sizes: list[int]) -> None:
    given_ = candidates(sizes)
    found = list(waves(given_))
    assert [id(one) for wave in found for one in wave] == [id(one) for one in given_]
    for wave in found:
        assert 0 < len(wave) <= SOURCES_AT_ONCE
        assert len(wave) == 1 or sum(one.n_bytes for one in wave) <= BYTES_AT_ONCE
    for wave, after in pairwise(found):  # none could have been longer
        n_bytes = sum(one.n_bytes for one in wave) + after[0].n_bytes
        assert len(wave) == SOURCES_AT_ONCE or n_bytes > BYTES_AT_ONCE


def test_sources_that_are_done_with_are_in_no_wave() -> None:
    first, second = candidates([1, 1])
    first.refuse("no cells")
    assert list(waves([first, second])) == [[second]]
