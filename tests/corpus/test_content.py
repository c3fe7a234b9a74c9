import numpy as np
from cytolake.corpus.content import content_hashes, content_keys, from_binary, to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

cells = st.dictionaries(st.sampled_from("ABCDEF"), st.integers(1, 2**32 - 1), max_size=6)


def hash_of(cell: dict[str, int]) -> list[int]:
    genes = list(cell)
    return content_hashes(
        genes,
        np.array([0, len(genes)]),
        np.arange(len(genes), dtype=np.int32),
        np.array(list(cell.values()), dtype=np.uint32),
    )[0].tolist()


@settings(deadline=None)
@given(cells, cells)
def test_equal_contents_and_only_those_have_equal_hashes(
    first: dict[str, int], second: dict[str, int]
) -> None:
    assert (hash_of(first) == hash_of(dict(reversed(second.items())))) == (first == second)


def hash_of_named(**counts: int) -> list[int]:
    return hash_of(counts)


def test_swapping_counts_or_moving_them_to_another_gene_changes_the_hash() -> None:
    seen = [
        hash_of_named(A=1, B=2),
        hash_of_named(A=2, B=1),
        hash_of_named(A=3),
        hash_of_named(B=3),
        hash_of_named(A=1, C=2),
    ]
    assert len({tuple(value) for value in seen}) == len(seen)


def test_hashes_survive_the_table_and_begin_with_the_key() -> None:
    hashes = np.array([[1, 2], [2**64 - 1, 0]], dtype=np.uint64)
    binary = to_binary(hashes)
    assert from_binary(binary).tolist() == hashes.tolist()
    assert binary[0].as_py()[:8] == (1).to_bytes(8, "little")
    assert content_keys(hashes).tolist() == [1, 2**64 - 1]
