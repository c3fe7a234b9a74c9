"""How long cells are, held against encoding all of them; how many make a batch, by hand."""

from pathlib import Path

import numpy as np
import pytest
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.platform.errors import TrainingError
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.encodings.tokens import TokenBatch
from cytolake.train.lengths import groups_per_step, measure_lengths
from cytolake.train.recipe import TrainingRecipe

from .conftest import gene_names
from .corpora import small_corpus

V2 = ("<pad>", "<mask>", "<cls>", "<eos>")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("lengths") / "corpus")


def encoding(length: int = 30, special: tuple[str, ...] = V2) -> RankValueEncoding:
    names = tuple(gene_names())
    vocabulary = Vocabulary(gene_ids=names, special=special)
    return RankValueEncoding(vocabulary, MediansSet(gene_ids=names, medians=np.ones(60)), length)


def test_all_cells_are_measured_where_they_are_few(corpus: Corpus):
    selection = corpus.select()
    [batch] = corpus.read(selection)
    n_genes_c = np.minimum(np.diff(batch.indptr), 28)  # two places are for <cls> and <eos>
    found = measure_lengths(corpus, selection, encoding(), seed=1, cells_per_group=7)
    assert (found.n_cells, found.error, found.n_without) == (120, 0.0, 0)
    assert found.mean_genes == pytest.approx(n_genes_c.mean())
    assert found.mean == pytest.approx(n_genes_c.mean() + 2)
    assert found.mean_square == pytest.approx(((n_genes_c + 2) ** 2).mean())


def test_a_sample_is_whole_groups_the_same_each_time_and_near_the_mean_of_all(corpus: Corpus):
    selection = corpus.select()
    whole = measure_lengths(corpus, selection, encoding(60), seed=1, cells_per_group=4)
    some, again = (
        measure_lengths(corpus, selection, encoding(60), seed=1, cells_per_group=4, most=50)
        for _ in range(2)
    )
    other = measure_lengths(corpus, selection, encoding(60), seed=2, cells_per_group=4, most=50)
    assert some == again != other
    assert some.n_cells == 48  # twelve groups of four
    assert 0 < some.error < 2
    assert abs(some.mean - whole.mean) < 4 * some.error


@pytest.mark.parametrize("most", [1000, 40])
def test_cells_are_told_group_after_group_as_the_stream_has_them(corpus: Corpus, most: int):
    selection = corpus.select()
    told = measure_lengths(
        corpus, selection, encoding(60), seed=5, cells_per_group=4, most=most
    ).cells
    stream = Stream(corpus, selection, seed=5, cells_per_group=4)
    groups = [
        TokenBatch.concatenate([encoding(60).encode(batch) for batch in stream.group(0, number)])
        for number in range(stream.n_groups)
    ]
    stream.close()
    expected = [sorted(group.lengths.tolist()) for group in groups]
    found = [sorted(told[first : first + 4]) for first in range(0, len(told), 4)]
    assert len(found) == min(most // 4, 30)
    assert found == [expected[round(n * 29 / (len(found) - 1))] for n in range(len(found))]


def test_cells_without_a_known_gene_are_counted(corpus: Corpus):
    vocabulary = Vocabulary(gene_ids=("ENSG00000000003",))
    medians = MediansSet(gene_ids=("ENSG00000000003",), medians=np.ones(1))
    one_gene = RankValueEncoding(vocabulary, medians, 8)
    selection = corpus.select()
    [batch] = corpus.read(selection)
    expected = batch.n_cells - int((batch.indices == 2).sum())
    found = measure_lengths(corpus, selection, one_gene, seed=0, cells_per_group=8)
    assert 0 < found.n_without == expected
    assert found.mean_genes == pytest.approx(1 - expected / 120)


def test_a_batch_in_tokens_becomes_the_nearest_number_of_groups():
    training = TrainingRecipe(tokens_per_step=1000, cells_per_group=4)
    # a group of 4 cells of 50 tokens has 200: 5 groups have the 1000
    assert groups_per_step(training, 50.0, n_workers=1) == 5
    assert groups_per_step(training, 45.0, n_workers=5) == 6  # 5.56 groups
    assert groups_per_step(training, 55.0, n_workers=5) == 5  # 4.55 groups


def test_a_batch_in_cells_is_what_the_recipe_says():
    training = TrainingRecipe(cells_per_step=24, cells_per_group=4)
    assert groups_per_step(training, 0.0, n_workers=2) == 6


def test_a_batch_that_the_workers_cannot_make_is_refused_with_numbers_that_would_do():
    training = TrainingRecipe(tokens_per_step=1000, cells_per_group=4)
    with pytest.raises(TrainingError) as caught:
        groups_per_step(training, 50.0, n_workers=8)
    assert "makes 5 groups of 4 cells with 50.0 tokens each" in str(caught.value)
    assert "8 workers need one each" in str(caught.value)
    for changed, n_workers in (
        ({"tokens_per_step": 1500}, 8),
        ({"cells_per_group": 2}, 8),
        ({}, 5),
    ):
        said = [f"{name} = {value} or" for name, value in changed.items()]
        assert all(f"training.{words}" in str(caught.value) for words in said)
        will_do = training.model_copy(update=changed)
        assert groups_per_step(will_do, 50.0, n_workers=n_workers) >= n_workers
    assert "engine.workers = 5" in str(caught.value)
    with pytest.raises(TrainingError, match="makes 0 groups"):
        groups_per_step(training, 0.0, n_workers=1)  # no cell has a token


def test_what_is_measured_does_not_depend_on_where_the_corpus_lies(corpus: Corpus, tmp_path: Path):
    anew = small_corpus(tmp_path / "elsewhere")
    first, second = (
        measure_lengths(lake, lake.select(), encoding(), seed=3, cells_per_group=5, most=60)
        for lake in (corpus, anew)
    )
    assert first == second
