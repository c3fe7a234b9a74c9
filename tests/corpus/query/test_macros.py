"""The macros against numpy over the dense matrix, and what they refuse."""

from typing import Any

import numpy as np
import pytest
from cytolake.corpus.query import sandbox
from cytolake.corpus.query.macros import MACROS
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import QueryError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

GENES = ["S10", "S150", "S199", "S200", "S599", "ENSG00000000003"]
GROUPS = ["cell_type", "source_id", "(donor_id, cell_type)", "n_counts > 100", "NULL", "1"]
CHOSEN = ["true", "source_id = 'large'", "source_id = 'small'", "row % 3 = 0", "cell_type = 'none'"]


class Dense:
    """Every living cell's count of every gene, NaN where it was not measured."""

    def __init__(self, corpus: Corpus) -> None:
        adata = corpus.to_anndata()
        self.cell_ids = adata.obs["cell_id"].to_numpy()
        self.n_counts = adata.obs["n_counts"].to_numpy()
        self.counts_cg = adata.X.toarray().astype(float)
        small = (adata.obs["source_id"] == "small").to_numpy()
        self.counts_cg[np.ix_(small, adata.var_names >= "ENSG00000000200")] = np.nan
        self.place = {gene_id: i for i, gene_id in enumerate(adata.var_names)}
        self.names = dict(zip(adata.var_names, adata.var["symbol"], strict=True))

    def ids_of(self, gene: str) -> list[str]:
        return [i for i, symbol in self.names.items() if gene in (i, symbol)]

    def per_10k(self, gene_id: str) -> NDArray[np.float64]:
        return self.counts_cg[:, self.place[gene_id]] / np.maximum(self.n_counts, 1) * 1e4


@pytest.fixture(scope="module")
def dense(asked: Corpus) -> Dense:
    return Dense(asked)


def members(corpus: Corpus, dense: Dense, groups: str, chosen: str) -> dict[str, Any]:
    """Label -> places of its cells."""
    rows = corpus.sql(f"SELECT cell_id, {groups} AS label FROM cells WHERE {chosen}").to_pylist()
    place = {cell_id: i for i, cell_id in enumerate(dense.cell_ids)}
    found: dict[str, Any] = {}
    for row in rows:
        found.setdefault(str(row["label"]), []).append(place[row["cell_id"]])
    return found


@settings(max_examples=40, deadline=None)
@given(gene=st.sampled_from(GENES), groups=st.sampled_from(GROUPS), chosen=st.sampled_from(CHOSEN))
def test_means_and_fractions_divide_by_the_cells_that_measured(
    asked: Corpus, dense: Dense, gene: str, groups: str, chosen: str
) -> None:
    rows = asked.sql(f"FROM mean_by('{gene}', {groups}, chosen := {chosen})").to_pylist()
    expected = members(asked, dense, groups, chosen)
    keys = {(label, gene_id) for label in expected for gene_id in dense.ids_of(gene)}
    assert {(str(row["label"]), row["gene_id"]) for row in rows} == keys
    assert len(rows) == len(keys)
    for row in rows:
        cells = expected[str(row["label"])]
        values = dense.per_10k(row["gene_id"])[cells]
        values = values[~np.isnan(values)]
        counted = (row["n_cells"], row["n_measured"], row["n_expressing"])
        assert counted == (len(cells), len(values), (values > 0).sum())
        told = [row["mean"], row["mean_log1p"], row["fraction"]]
        if len(values):
            means = [values.mean(), np.log1p(values).mean(), (values > 0).mean()]
            np.testing.assert_allclose(told, means, rtol=1e-9)
        else:
            assert told == [None, None, None]


@pytest.mark.parametrize("gene", GENES)
def test_each_cell_has_its_value_or_null(asked: Corpus, dense: Dense, gene: str) -> None:
    rows = asked.sql(f"FROM normalised('{gene}')").to_pylist()
    found = {(row["cell_id"], row["gene_id"]): row for row in rows}
    assert len(found) == len(rows) == len(dense.cell_ids) * len(dense.ids_of(gene))
    for gene_id in dense.ids_of(gene):
        for cell_id, count, value in zip(
            dense.cell_ids,
            dense.counts_cg[:, dense.place[gene_id]],
            dense.per_10k(gene_id),
            strict=True,
        ):
            row = found[cell_id, gene_id]
            if np.isnan(count):
                assert (row["count"], row["per_10k"], row["log1p"]) == (None, None, None)
            else:
                assert row["count"] == count
                assert row["per_10k"] == pytest.approx(value)
                assert row["log1p"] == pytest.approx(np.log1p(value))


@pytest.mark.parametrize("chosen", CHOSEN)
def test_pseudobulk_sums_every_gene_that_a_group_measured(
    asked: Corpus, dense: Dense, chosen: str
) -> None:
    rows = asked.sql(f"FROM pseudobulk(donor_id, chosen := {chosen})").to_pylist()
    expected = {}
    for label, cells in members(asked, dense, "donor_id", chosen).items():
        counts_cg = dense.counts_cg[cells]
        for gene_id, place in dense.place.items():
            values = counts_cg[:, place][~np.isnan(counts_cg[:, place])]
            if len(values):
                expected[label, gene_id] = (len(values), (values > 0).sum(), values.sum())
    found = {
        (row["label"], row["gene_id"]): (row["n_measured"], row["n_expressing"], row["total"])
        for row in rows
    }
    assert found == expected and len(rows) == len(found)


@pytest.mark.parametrize(("one", "other"), [("S10", "S11"), ("S10", "S400"), ("S0", "S12")])
def test_coexpression_counts_cells_that_measured_both(
    asked: Corpus, dense: Dense, one: str, other: str
) -> None:
    rows = asked.sql(f"FROM coexpression('{one}', '{other}')").to_pylist()
    assert len(rows) == len(dense.ids_of(one)) * len(dense.ids_of(other))
    for row in rows:
        x, y = dense.per_10k(row["gene_id"]), dense.per_10k(row["other_id"])
        both = ~np.isnan(x) & ~np.isnan(y)
        x, y = x[both], y[both]
        table = [len(x), *((a & b).sum() for a in (x > 0, x == 0) for b in (y > 0, y == 0))]
        names = ("n_measured", "n_both", "n_only_one", "n_only_other", "n_neither")
        assert [row[name] for name in names] == table
        assert row["correlation"] == pytest.approx(np.corrcoef(np.log1p(x), np.log1p(y))[0, 1])


def test_markers_are_welchs_t_over_the_cells_that_measured(asked: Corpus, dense: Dense) -> None:
    from scipy.stats import ttest_ind

    rows = asked.sql("FROM markers(cell_type = 'T cell')").to_pylist()
    groups = members(asked, dense, "cell_type = 'T cell'", "true")
    assert {row["gene_id"] for row in rows} == set(dense.place) and "None" in groups
    for row in rows:
        values = [np.log1p(dense.per_10k(row["gene_id"])[groups[g]]) for g in ("True", "False")]
        inside, rest = (v[~np.isnan(v)] for v in values)
        assert (row["n_target"], row["n_rest"]) == (len(inside), len(rest))
        assert row["fraction_rest"] == pytest.approx((rest > 0).mean())
        score: Any = ttest_ind(inside, rest, equal_var=False)
        assert row["score"] == pytest.approx(score.statistic, rel=1e-7)
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("FROM normalised('s10')", "no gene of the corpus is called s10"),
        ("FROM mean_by('CD3D', cell_type)", "no gene of the corpus is called CD3D"),
        ("FROM coexpression('S10', 'nobody')", "no gene of the corpus is called nobody"),
        ("FROM pseudobulk(donor_id, genes := ['S10', 'nobody'])", "is called nobody"),
        ("FROM markers(cell_type = 'T cell', genes := ['nobody'])", "is called nobody"),
        ("FROM mean_by('S10', cel_type)", "no column 'cel_type'; did you mean 'cell_type'"),
        ("FROM mean_off('S10', cell_type)", r"mean_off\(\) is not allowed; did you mean 'mean_by'"),
    ],
)
def test_a_name_that_is_nothing_is_an_error_and_not_an_empty_answer(
    asked: Corpus, query: str, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        asked.sql(query)


@pytest.mark.parametrize(
    "argument",
    [
        "(SELECT content FROM read_text('x'))",
        "(FROM 'x.parquet')",
        "getenv('HOME')",
        "current_setting('temp_directory')",
        "(SELECT max(place) FROM lake.places)",
        "(WITH x AS (DELETE FROM sources RETURNING *) FROM x)",
        "(FROM duckdb_views())",
        "$1",
    ],
)
@pytest.mark.parametrize("name", MACROS)
def test_what_a_query_may_not_say_an_argument_may_not(
    asked: Corpus, name: str, argument: str
) -> None:
    for arguments in (argument, f"'S10', {argument}", f"'S10', cell_type, chosen := {argument}"):
        with pytest.raises(QueryError):
            asked.sql(f"FROM {name}({arguments})")
        with pytest.raises(QueryError):
            asked.select(f"cell_id IN (SELECT cell_id FROM {name}({arguments}))")


def test_only_macros_of_the_list_can_be_called(asked: Corpus) -> None:
    asked.sql("FROM mean_by('S10', cell_type)")
    made = asked._engine.inner(
        "SELECT function_name FROM duckdb_functions() WHERE function_type = 'table_macro' "
        "AND NOT internal",
        set(),
    )
    assert set(made.column("function_name").to_pylist()) <= set(MACROS)
    assert sandbox.check_query("FROM mean_by('S10', cell_type)") == {"mean_by"}


def test_a_user_s_own_names_do_not_meet_those_inside(asked: Corpus) -> None:
    columns = "SELECT label, n_cells, n_measured, n_expressing"
    expected = asked.sql(f"{columns} FROM mean_by('S10', cell_type, chosen := row < 50)")
    for name in ("picked", "wanted", "stored", "seen", "sizes", "gene", "chosen", "lists"):
        found = asked.sql(
            f"WITH {name} AS (SELECT cell_id FROM cells WHERE row < 50) {columns} "
            f"FROM mean_by('S10', cell_type, chosen := cell_id IN (FROM {name} SELECT cell_id))"
        )
        assert found.equals(expected), name
    with pytest.raises(QueryError, match="choose a plain name"):
        asked.sql("WITH _lake_wanted AS (SELECT 1 AS x) FROM mean_by('S10', cell_type)")


def test_a_selection_may_ask_a_macro(asked: Corpus) -> None:
    where = "cell_id IN (SELECT cell_id FROM normalised('S10') WHERE count > 1)"
    n = asked.sql("SELECT count(*) AS n FROM expression WHERE symbol = 'S10' AND count > 1")
    assert asked.select(where, primary_only=False).n_cells == n.column("n")[0].as_py()
