import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cytolake.corpus.cells import CellBatch
from cytolake.corpus.medians import MediansSet, official_medians
from cytolake.corpus.vocabularies import Vocabulary, official_vocabulary
from cytolake.platform.errors import VocabularyError
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.encodings.tokens import TokenBatch
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import gene_names, random_cells

ACTB, MYH6 = "ENSG00000075624", "ENSG00000197616"


def one_cell(counts: dict[str, int]) -> CellBatch:
    return CellBatch(
        gene_ids=np.array(list(counts), dtype=object),
        indptr=np.array([0, len(counts)]),
        indices=np.arange(len(counts), dtype=np.int32),
        counts=np.array(list(counts.values()), dtype=np.uint32),
        n_counts=np.array([sum(counts.values())]),
        content_keys=np.array([7], dtype=np.uint64),
        obs=pa.table({"cell_id": [1]}),
    )


def slow_tokens(
    batch: CellBatch, vocabulary: Vocabulary, medians: MediansSet, length: int
) -> list[list[int]]:
    """The encoding, spelled out in Python's own float64 and sort."""
    token_of = {gene: 2 + i for i, gene in enumerate(vocabulary.gene_ids)}
    median_of = dict(zip(medians.gene_ids, medians.medians.tolist(), strict=True))
    cells: list[list[int]] = []
    for cell in range(batch.n_cells):
        total: dict[str, int] = {}
        for place in range(batch.indptr[cell], batch.indptr[cell + 1]):
            given_id = str(batch.gene_ids[batch.indices[place]])
            gene = vocabulary.mapping.get(given_id, given_id)
            if gene in token_of and gene in median_of:
                total[gene] = total.get(gene, 0) + int(batch.counts[place])
        ranked = sorted(total, key=lambda gene: (-total[gene] / median_of[gene], token_of[gene]))
        cells.append([token_of[gene] for gene in ranked][:length])
    return cells


def as_lists(batch: TokenBatch) -> list[list[int]]:
    return [batch.cell(i).tolist() for i in range(batch.n_cells)]


def test_a_housekeeping_gene_ranks_below_a_rare_one():
    vocabulary = Vocabulary(gene_ids=(ACTB, MYH6))
    medians = MediansSet(gene_ids=(ACTB, MYH6), medians=np.array([20.0, 1.0]))
    encoded = RankValueEncoding(vocabulary, medians, 2).encode(one_cell({ACTB: 10, MYH6: 4}))
    assert encoded.tokens.tolist() == [3, 2]
    assert encoded.keys.tolist() == [7]
    assert encoded.cell_ids.tolist() == [1]


def test_equal_keys_are_ordered_by_ascending_token():
    vocabulary = Vocabulary(gene_ids=("ENSG1", "ENSG2", "ENSG3"))
    medians = MediansSet(gene_ids=("ENSG1", "ENSG2", "ENSG3"), medians=np.array([2.0, 1.0, 4.0]))
    cell = one_cell({"ENSG3": 4, "ENSG2": 1, "ENSG1": 2})
    assert RankValueEncoding(vocabulary, medians, 9).encode(cell).tokens.tolist() == [2, 3, 4]


def test_ids_that_meet_in_one_token_are_summed():
    vocabulary = Vocabulary(gene_ids=("ENSG1", "ENSG2"), mapping={"ENSG9": "ENSG1"})
    medians = MediansSet(gene_ids=("ENSG1", "ENSG2"), medians=np.array([1.0, 1.0]))
    cell = one_cell({"ENSG1": 2, "ENSG2": 3, "ENSG9": 2})
    assert RankValueEncoding(vocabulary, medians, 9).encode(cell).tokens.tolist() == [2, 3]


def test_genes_outside_the_vocabulary_or_without_a_median_are_left_out():
    vocabulary = Vocabulary(gene_ids=("ENSG1", "ENSG2"))
    medians = MediansSet(gene_ids=("ENSG1", "ENSG7"), medians=np.array([1.0, 1.0]))
    encoding = RankValueEncoding(vocabulary, medians, 9)
    cell = one_cell({"ENSG2": 50, "ENSG7": 30, "ENSG1": 20})
    assert encoding.encode(cell).tokens.tolist() == [2]
    assert encoding.coverage(cell) == (0.2, 1.0)


def test_begin_and_end_tokens_count_in_the_length():
    vocabulary = Vocabulary(
        gene_ids=("ENSG1", "ENSG2"), special=("<pad>", "<mask>", "<cls>", "<eos>")
    )
    medians = MediansSet(gene_ids=("ENSG1", "ENSG2"), medians=np.array([1.0, 1.0]))
    cell = one_cell({"ENSG1": 2, "ENSG2": 3})
    assert RankValueEncoding(vocabulary, medians, 4).encode(cell).tokens.tolist() == [2, 5, 4, 3]
    assert RankValueEncoding(vocabulary, medians, 3).encode(cell).tokens.tolist() == [2, 5, 3]


def test_medians_of_other_genes_are_refused(vocabulary: Vocabulary):
    medians = MediansSet(gene_ids=("ENSGX",), medians=np.array([1.0]))
    with pytest.raises(VocabularyError, match="do not belong together"):
        RankValueEncoding(vocabulary, medians, 10)


def test_a_length_without_room_for_a_gene_is_refused(vocabulary: Vocabulary, medians: MediansSet):
    with pytest.raises(VocabularyError, match="length is 0"):
        RankValueEncoding(vocabulary, medians, 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 70), n_cells=st.integers(0, 8))
def test_any_cells_encode_as_the_float64_oracle_says(seed: int, length: int, n_cells: int):
    draw = np.random.default_rng(seed)
    names = gene_names()
    vocabulary = Vocabulary(
        gene_ids=tuple(draw.permutation(names[:50])), mapping={names[55]: names[3]}
    )
    medians = MediansSet(gene_ids=tuple(names[5:]), medians=draw.integers(1, 4, len(names) - 5) / 2)
    batch = random_cells(n_cells, seed=seed)
    encoded = RankValueEncoding(vocabulary, medians, length).encode(batch)
    assert as_lists(encoded) == slow_tokens(batch, vocabulary, medians, length)


@pytest.mark.parametrize("n_ties", [2, 32, 33, 90])
def test_keys_that_differ_late_or_not_at_all_are_ordered_too(n_ties: int):
    """Keys are sorted by 32 of their 64 bits at first; these differ after them."""
    draw = np.random.default_rng(n_ties)
    names = [f"ENSG{i:03d}" for i in range(100)]
    vocabulary = Vocabulary(gene_ids=tuple(str(name) for name in draw.permutation(names)))
    near = draw.choice([1.0, 1 + 1e-9, 1 + 2e-9], n_ties)
    medians = MediansSet(
        gene_ids=tuple(names), medians=np.concatenate([near, draw.uniform(2, 9, 100 - n_ties)])
    )
    batch = one_cell(dict.fromkeys(names, 1))
    encoded = RankValueEncoding(vocabulary, medians, 100).encode(batch)
    assert as_lists(encoded) == slow_tokens(batch, vocabulary, medians, 100)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n_cells=st.integers(1, 3),
    n_genes=st.integers(1, 3000),
    decades=st.sampled_from([0.0, 0.3, 3.0, 300.0]),
    highest=st.sampled_from([1, 3, 2**32 - 1]),
)
def test_keys_over_any_span_are_ordered_to_the_last_bit(
    seed: int, n_cells: int, n_genes: int, decades: float, highest: int
):
    """One key far from the others leaves these few digits of their own, and many ties."""
    draw = np.random.default_rng(seed)
    names = np.array([f"ENSG{i:04d}" for i in range(n_genes)], dtype=object)
    vocabulary = Vocabulary(gene_ids=tuple(draw.permutation(names)))
    medians = MediansSet(
        gene_ids=tuple(names), medians=10.0 ** draw.uniform(-decades / 2, decades / 2, n_genes)
    )
    stored = [np.flatnonzero(draw.uniform(size=n_genes) < share) for share in draw.uniform(size=3)]
    stored = stored[:n_cells]
    indptr = np.concatenate([[0], np.cumsum([len(genes) for genes in stored])])
    batch = CellBatch(
        gene_ids=names,
        indptr=indptr,
        indices=np.concatenate(stored).astype(np.int32),
        counts=draw.integers(1, highest + 1, indptr[-1]).astype(np.uint32),
        n_counts=np.ones(n_cells, dtype=np.int64),
        content_keys=np.zeros(n_cells, dtype=np.uint64),
        obs=pa.table({"cell_id": np.arange(n_cells)}),
    )
    encoded = RankValueEncoding(vocabulary, medians, 2048).encode(batch)
    assert as_lists(encoded) == slow_tokens(batch, vocabulary, medians, 2048)


def test_tokens_are_never_written_to_again(vocabulary: Vocabulary, medians: MediansSet):
    """Memory is used again only once nobody looks into it."""
    encoding = RankValueEncoding(vocabulary, medians, 30)
    batches = [random_cells(3, seed=seed) for seed in range(40)]
    kept = [encoding.encode(batch).tokens[:5] for batch in batches]
    copies = [tokens.tolist() for tokens in kept]
    for batch in batches:
        encoding.encode(batch)
    assert [tokens.tolist() for tokens in kept] == copies


def test_an_encoding_goes_to_another_process_without_its_memory(
    vocabulary: Vocabulary, medians: MediansSet
):
    """As a loader's workers get it; see `CellDataset`."""
    encoding = RankValueEncoding(vocabulary, medians, 30)
    batch = random_cells(2000, seed=1)
    before = len(pickle.dumps(encoding))
    expected = as_lists(encoding.encode(batch))
    sent = pickle.dumps(encoding)
    assert len(sent) < before + 10_000
    assert as_lists(pickle.loads(sent).encode(batch)) == expected


def test_batches_join_in_their_order(vocabulary: Vocabulary, medians: MediansSet):
    encoding = RankValueEncoding(vocabulary, medians, 30)
    first, second = (encoding.encode(random_cells(3, seed=seed)) for seed in (1, 2))
    joined = TokenBatch.concatenate([first, second])
    assert as_lists(joined) == as_lists(first) + as_lists(second)
    assert TokenBatch.concatenate([]).n_cells == 0


def resources() -> Path:
    folder = os.environ.get("CYTOLAKE_RESOURCES")
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: the official dictionaries are not at hand")
    return Path(folder)


@pytest.mark.parametrize(
    ("version", "label", "length"), [("v1", "30M", 2048), ("v2", "95M", 4096)], ids=["V1", "V2"]
)
def test_real_cells_encode_as_the_official_tokenizer_says_up_to_ties(
    version: str, label: str, length: int
):
    import anndata
    import pyarrow.parquet as pq
    from scipy.sparse import csr_matrix

    folder = resources() / "geneformer"
    dictionaries = folder / f"{version}_gc{label}"
    vocabulary = official_vocabulary(dictionaries, version)
    medians = official_medians(dictionaries / f"gene_median_dictionary_gc{label}.tsv")
    golden = pq.read_table(folder / f"golden/pbmc3k_300cells_official_{version}_tokens.parquet")
    adata = anndata.read_h5ad(resources() / "pbmc3k_10x/pbmc3k_raw_labelled.h5ad")
    matrix = csr_matrix(adata[golden.column("barcode").to_pylist()].to_df().to_numpy())
    matrix.sort_indices()
    n_cells = golden.num_rows
    batch = CellBatch(
        gene_ids=np.array(adata.var_names, dtype=object),
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices.astype(np.int32),
        counts=matrix.data.astype(np.uint32),
        n_counts=np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64),
        content_keys=np.zeros(n_cells, dtype=np.uint64),
        obs=pa.table({"cell_id": np.arange(n_cells)}),
    )
    encoded = RankValueEncoding(vocabulary, medians, length).encode(batch)
    median_of = dict(zip(medians.gene_ids, medians.medians.tolist(), strict=True))
    tokens_g = vocabulary.tokens_of(batch.gene_ids)
    n_specials = len(vocabulary.special)
    n_differing = 0
    for cell, official in enumerate(golden.column("input_ids").to_pylist()):
        ours = encoded.cell(cell).tolist()
        assert len(ours) == len(official)
        places = slice(batch.indptr[cell], batch.indptr[cell + 1])
        total: dict[int, int] = {}
        for gene, count in zip(batch.indices[places], batch.counts[places], strict=True):
            token = int(tokens_g[gene])
            total[token] = total.get(token, 0) + int(count)
        for mine, theirs in zip(ours, official, strict=True):
            if mine == theirs:
                continue
            n_differing += 1
            keys = [total[token] / median_of[vocabulary.gene_of(token)] for token in (mine, theirs)]
            assert min(mine, theirs) >= n_specials
            # The official keys are float32: what differs by less is a tie there.
            assert keys[0] == pytest.approx(keys[1], rel=float(np.finfo(np.float32).eps))
    assert n_differing < 1e-4 * len(encoded.tokens)
