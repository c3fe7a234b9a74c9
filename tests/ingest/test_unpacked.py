from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.ingest.unpacked import Counts, keeping, kept
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse


def counts_of(tables: list[Any], n_names: int) -> list[Counts]:
    first, found = 0, []
    for table in tables:
        dense = np.array(table, dtype=np.uint32).reshape(-1, n_names)
        rows = np.arange(first, first + len(dense), dtype=np.int64) * 3
        found.append(Counts(rows=rows, matrix=sparse.csr_matrix(dense)))
        first += len(dense)
    return found


row = st.lists(st.sampled_from([0, 0, 1, 65_535, 65_536, 2**32 - 1]), min_size=4, max_size=4)


@settings(deadline=None, max_examples=50)
@given(tables=st.lists(st.lists(row, max_size=3), max_size=3), wide=st.booleans())
def test_what_is_kept_is_what_passed(
    tables: Any, wide: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    n_names = 70_000 if wide else 4
    given_ = counts_of([[r + [0] * (n_names - 4) for r in table] for table in tables], n_names)
    path = tmp_path_factory.mktemp("kept") / "staging" / "counts.arrow"
    passed = list(keeping(path, given_, n_names))
    assert [id(one) for one in passed] == [id(one) for one in given_]
    again = list(kept(path, n_names))
    assert len(again) == len(given_)
    for one, other in zip(again, given_, strict=True):
        assert (one.rows == other.rows).all() and one.matrix.dtype == np.uint32
        assert one.matrix.shape == other.matrix.shape
        assert (one.matrix != other.matrix).nnz == 0


def test_counts_that_were_not_all_passed_on_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "counts.arrow"

    def breaking() -> Any:
        yield counts_of([[[1, 2, 3, 4]]], 4)[0]
        raise RuntimeError("no count")

    with pytest.raises(RuntimeError, match="no count"):
        list(keeping(path, breaking(), 4))
    assert not path.exists()
