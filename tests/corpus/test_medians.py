import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.medians import MediansSet, medians_of
from cytolake.corpus.sketches import Sketch
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import DamageError, NoCellsError, VocabularyError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

GENES = np.array(["A", "B", "C"], dtype=object)


def sketch_of(matrix: np.ndarray, n_counts: np.ndarray) -> Sketch:
    counts = sparse.csr_matrix(matrix)
    return Sketch.of(
        GENES,
        counts.indptr.astype(np.int64),
        counts.indices.astype(np.int32),
        counts.data.astype(np.uint32),
        n_counts.astype(np.int64),
    )


def oracle(matrix: np.ndarray, n_counts: np.ndarray) -> np.ndarray:
    """The median of non-zero values, one gene at a time."""
    medians = []
    for gene in range(matrix.shape[1]):
        values = [
            count / total * 1e4
            for count, total in zip(matrix[:, gene], n_counts, strict=True)
            if count
        ]
        medians.append(np.median(values) if values else np.nan)
    return np.array(medians)


matrices = st.lists(
    st.tuples(st.lists(st.integers(0, 60_000), min_size=3, max_size=3), st.integers(0, 10**6)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(matrices, st.integers(0, 12))
def test_medians_are_within_half_a_percent_and_merging_changes_nothing(
    rows: list[tuple[list[int], int]], cut: int
) -> None:
    matrix = np.array([row for row, _ in rows])
    n_counts = matrix.sum(axis=1) + np.array([more for _, more in rows]) + 1
    whole = sketch_of(matrix, n_counts)
    parts = [sketch_of(matrix[:cut], n_counts[:cut]), sketch_of(matrix[cut:], n_counts[cut:])]
    np.testing.assert_allclose(whole.medians(), oracle(matrix, n_counts), rtol=0.005)
    merged = Sketch.merge(parts)
    assert merged.bins.tolist() == whole.bins.tolist()
    assert merged.n_values.tolist() == whole.n_values.tolist()
    assert merged.indptr.tolist() == whole.indptr.tolist()


def test_a_sketch_survives_its_table() -> None:
    sketch = sketch_of(np.array([[1, 0, 3], [2, 0, 3]]), np.array([10, 10]))
    again = Sketch.from_table(pa.table({"gene_id": list(GENES), **sketch.to_columns()}))
    assert again.n_cells().tolist() == [2, 0, 2]
    np.testing.assert_array_equal(again.medians(), sketch.medians())


def test_a_whole_segment_by_its_sketch_equals_the_same_cells_read(fake_corpus: Corpus) -> None:
    by_sketch = medians_of(fake_corpus, fake_corpus.select("tissue = 'blood'"))
    batch = fake_corpus.read(fake_corpus.select("tissue = 'blood'"))[0]
    by_hand = Sketch.of(
        batch.gene_ids, batch.indptr, batch.indices, batch.counts, batch.n_counts
    ).medians()
    np.testing.assert_array_equal(by_sketch.medians, by_hand)
    # ACTB: 2/10, 1/5 and 3/10 of 10,000
    assert by_sketch.of(["ENSG00000000001"])[0] == pytest.approx(2000, rel=0.01)


def test_medians_of_a_segment_that_lost_cells_are_those_of_the_cells_left(
    fake_corpus: Corpus,
) -> None:
    medians = medians_of(fake_corpus, fake_corpus.select("tissue = 'blood' AND barcode <> 'AAC'"))
    # ACTB: 2/10 and 3/10 of 10,000; CD3D: 4/10; MIR21: only the cell that is left out
    assert medians.origin["n_cells"] == 2
    assert medians.of(["ENSG00000000001", "ENSG00000000002"]) == pytest.approx(
        [2500, 4000], rel=0.005
    )
    assert np.isnan(medians.of(["ENSG00000000005"])[0])


def test_medians_of_most_cells_of_a_segment_are_those_of_the_same_cells_read(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path
) -> None:
    """Those left out are taken off the stored sketch, also when they are deleted."""
    corpus = build_fake_corpus(tmp_path / "corpus")
    most = corpus.select("tissue = 'blood' AND barcode <> 'AAA'")
    by_hand = Sketch.merge(
        Sketch.of(b.gene_ids, b.indptr, b.indices, b.counts, b.n_counts) for b in corpus.read(most)
    )
    expected = MediansSet.of_sketch(by_hand, {})
    assert medians_of(corpus, most).digest == expected.digest
    corpus.delete("barcode = 'AAA'")
    left = Corpus.open(corpus.uri)
    found = medians_of(left, left.select("tissue = 'blood'"))
    assert (found.digest, found.n_cells.tolist()) == (expected.digest, expected.n_cells.tolist())


def test_a_panel_is_left_out_of_medians_and_said(fake_corpus: Corpus) -> None:
    medians = medians_of(fake_corpus, fake_corpus.select())
    assert medians.origin["n_cells"] == 3
    assert medians.origin["panels_left_out"] == ["lung"]
    with pytest.raises(NoCellsError, match='panel = "use"'):
        medians_of(fake_corpus, fake_corpus.select("tissue = 'lung'"))


def test_medians_of_duplicates_are_refused(fake_corpus: Corpus) -> None:
    with pytest.raises(VocabularyError, match="primary"):
        medians_of(fake_corpus, fake_corpus.select(primary_only=False))


def test_a_medians_set_survives_its_json_and_tells_damage() -> None:
    medians = MediansSet(gene_ids=("A", "B"), medians=np.array([0.1, 1 / 3]), origin={"n": 2})
    again = MediansSet.from_json(medians.to_json())
    assert again.digest == medians.digest
    assert again.medians.tolist() == [0.1, 1 / 3]
    values = json.loads(medians.to_json())
    values["medians"]["A"] = 0.2
    with pytest.raises(DamageError):
        MediansSet.from_json(json.dumps(values))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_median_that_cannot_divide_is_refused(bad: float) -> None:
    with pytest.raises(VocabularyError, match="median of A"):
        MediansSet(gene_ids=("A",), medians=np.array([bad]))


def test_a_gene_without_median_is_nan_never_a_number() -> None:
    medians = MediansSet(gene_ids=("A",), medians=np.array([2.0]))
    assert np.isnan(medians.of(["B", "A"])[0])
