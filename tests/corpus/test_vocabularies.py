import os
from pathlib import Path

import pytest
from cytolake.corpus.vocabularies import Vocabulary, official_vocabulary
from cytolake.platform.errors import VocabularyError


def resources() -> Path:
    folder = os.environ.get("CYTOLAKE_RESOURCES")
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: the official tables are there")
    return Path(folder)


def test_tokens_count_from_the_special_ones_and_pass_through_the_mapping() -> None:
    vocabulary = Vocabulary(gene_ids=("A", "B"), mapping={"OLD": "B"})
    assert vocabulary.tokens_of(["B", "A", "OLD", "X"]).tolist() == [3, 2, 3, -1]
    assert vocabulary.size == 4
    assert vocabulary.gene_of(3) == "B"
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize("token", [0, 1, 4, -1])
def test_a_token_that_is_no_gene_is_refused(token: int) -> None:
    with pytest.raises(VocabularyError, match="no gene"):
        Vocabulary(gene_ids=("A", "B")).gene_of(token)


def test_a_vocabulary_with_a_gene_twice_is_refused() -> None:
    with pytest.raises(VocabularyError, match="twice"):
        Vocabulary(gene_ids=("A", "A"))


@pytest.mark.parametrize(
    ("version", "folder", "size", "n_special"),
    [("v1", "v1_gc30M", 25_426, 2), ("v2", "v2_gc95M", 20_275, 4)],
)
def test_the_official_vocabularies_have_their_published_sizes(
    version: str, folder: str, size: int, n_special: int
) -> None:
    vocabulary = official_vocabulary(resources() / "geneformer" / folder, version)
    assert (vocabulary.size, len(vocabulary.special)) == (size, n_special)
    assert bool(vocabulary.mapping) == (version == "v2")


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="did you mean 'v2'"):
        official_vocabulary(tmp_path, "v2x")
