"""The questions of docs/sql.md on real data: each answer equals pandas', or scanpy's, on the files.

The queries are read out of the page, so that what it shows is what was tried.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from .real_lake import FILES, RealLake, build

PAGE = Path(__file__).parents[3] / "docs/sql.md"
Oracle = Callable[[RealLake], Any]
ORACLES: dict[int, Oracle] = {}

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("CYTOLAKE_RESOURCES"),
        reason="CYTOLAKE_RESOURCES is not set: no real data at hand",
    ),
    pytest.mark.filterwarnings("ignore"),  # scanpy and anndata warn of each other
]


def queries() -> tuple[list[str], dict[int, str]]:
    """The queries before the twenty, and the twenty by number."""
    head, tail = PAGE.read_text(encoding="utf-8").split("## Twenty questions")
    numbered = re.findall(r"^### (\d+)\..*?```sql\n(.*?)```", tail, re.DOTALL | re.MULTILINE)
    opening = re.findall(r"```sql\n(.*?)```", head, re.DOTALL)
    return opening, {int(number): query for number, query in numbered}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> RealLake:
    return build(tmp_path_factory.mktemp("questions"))


def answers(number: int) -> Callable[[Oracle], Oracle]:
    def put(oracle: Oracle) -> Oracle:
        ORACLES[number] = oracle
        return oracle

    return put


def in_order(found: Any, expected: Any) -> tuple[Any, Any]:
    """Both tables with their rows in one order; NULL is equal to NULL alone."""
    keys = [name for name in expected if expected[name].dtype == object or "id" in name]

    def ordered(frame: Any) -> Any:
        frame = frame.astype({name: object for name in keys})
        frame[keys] = frame[keys].where(frame[keys].notna(), "NULL")
        rest = [name for name in frame if name not in keys]
        frame[rest] = frame[rest].astype(float)
        frame[keys] = frame[keys].astype(str)
        return frame.sort_values(keys or rest, ignore_index=True)

    return ordered(found), ordered(expected)


def grouped(lake: RealLake, symbol: str, label: Any) -> Any:
    """Per group: cells that measured a gene, those expressing it, means; NaN where none did."""
    values = lake.per_10k(symbol)
    frame = pd.DataFrame({"v": values, "l": np.log1p(values), "k": (values > 0).where(values >= 0)})
    by = [label[name] for name in label] if isinstance(label, pd.DataFrame) else label
    groups = frame.loc[by[0].index if isinstance(by, list) else by.index].groupby(by, dropna=False)
    return pd.DataFrame(
        {
            "n_cells": groups.size(),
            "n_measured": groups["v"].count(),
            "n_expressing": groups["k"].sum(),
            "mean": groups["v"].mean(),
            "mean_log1p": groups["l"].mean(),
            "fraction": groups["k"].mean(),
        }
    ).reset_index()


def ranked(lake: RealLake, chosen: Any, target: Any) -> Any:
    """scanpy's ranking of the cells of pbmc3k that are chosen."""
    import anndata as ad
    import scanpy as sc

    counts = lake.counts["pbmc3k"].loc[chosen[chosen].index]
    totals = lake.cells.loc[counts.index, "n_counts"].to_numpy()[:, None]
    inside = target.loc[counts.index]
    adata = ad.AnnData(np.log1p(counts.to_numpy() / totals * 1e4))
    adata.var_names = list(counts)
    adata.obs["group"] = pd.Categorical(np.where(inside, "target", "rest"))
    sc.tl.rank_genes_groups(adata, "group", groups=["target"], reference="rest", method="t-test")
    told = sc.get.rank_genes_groups_df(adata, "target").set_index("names")
    per_10k = counts / totals * 1e4
    frame = pd.DataFrame(
        {
            "symbol": pd.Series(lake.symbols).reindex(counts.columns),
            "n_target": float(inside.sum()),
            "n_rest": float((~inside).sum()),
            "mean_target": per_10k[inside].mean(),
            "mean_rest": per_10k[~inside].mean(),
            "fraction_target": (per_10k[inside] > 0).mean(),
            "fraction_rest": (per_10k[~inside] > 0).mean(),
            "log2_fold_change": told["logfoldchanges"].reindex(counts.columns),
            "score": told["scores"].reindex(counts.columns),
        }
    )
    return frame.sort_values("score", ascending=False)


@answers(1)
def _(lake: RealLake) -> Any:
    groups = lake.cells.groupby(["source_id", "cell_type"], dropna=False)
    return groups.size().rename("n").reset_index()


@answers(2)
def _(lake: RealLake) -> Any:
    counts = lake.gene("CD3D")
    told = {"gene_id": [lake.id_of("CD3D")], "n_cells": (counts > 0).sum(), "total": counts.sum()}
    return pd.DataFrame(told)


@answers(3)
def _(lake: RealLake) -> Any:
    gene_id = lake.id_of("CD4")
    return pd.DataFrame({"source_id": [n for n, m in lake.counts.items() if gene_id not in m]})


@answers(4)
def _(lake: RealLake) -> Any:
    told = {"cell_id": lake.cells["cell_id"], "count": lake.gene("MS4A1")}
    value = lake.per_10k("MS4A1")
    return pd.DataFrame({**told, "per_10k": value, "log1p": np.log1p(value)})


@answers(5)
def _(lake: RealLake) -> Any:
    told = grouped(lake, "CD3D", lake.cells["cell_type"].rename("label"))
    return told.drop(columns="n_cells")


@answers(6)
def _(lake: RealLake) -> Any:
    told = grouped(lake, "ISG15", lake.cells[["source_id", "cell_type"]])
    return told[["source_id", "cell_type", "n_measured", "mean", "fraction"]]


@answers(7)
def _(lake: RealLake) -> Any:
    cells = lake.cells
    chosen = cells[(cells["cell_type"] == "CD14+ Monocytes") & (cells["n_counts"] > 1500)]
    told = grouped(lake, "LYZ", chosen["donor_id"].rename("label"))
    return told[["label", "n_measured", "mean", "fraction"]]


@answers(8)
def _(lake: RealLake) -> Any:
    told = {
        name: grouped(lake, name, lake.cells["cell_type"].rename("label"))
        for name in ("CD3D", "MS4A1", "NKG7", "LYZ")
    }
    frame: Any = pd.concat(list(told.values()), keys=list(told), names=["name", None]).reset_index(
        level=0
    )
    return frame[["name", "label", "mean_log1p", "fraction"]]


@answers(9)
def _(lake: RealLake) -> Any:
    chosen = lake.cells[lake.cells["source_id"] == "pbmc3k"]
    told = grouped(lake, "CD8A", (chosen["n_counts"] // 1000).rename("thousands"))
    return told[["thousands", "n_measured", "fraction"]]


@answers(10)
def _(lake: RealLake) -> Any:
    cells = lake.cells[lake.cells["source_id"] == "kang"]
    frames = []
    for symbol in ("ISG15", "LYZ", "CD3D"):
        counts = lake.gene(symbol).loc[cells.index]
        groups = counts.groupby([cells["donor_id"], cells["cell_type"]])
        told = groups.agg(["size", "sum"]).reset_index()
        told.insert(2, "symbol", symbol)
        frames.append(
            told.set_axis(["donor_id", "cell_type", "symbol", "n_measured", "total"], axis=1)
        )
    return pd.concat(frames)


@answers(11)
def _(lake: RealLake) -> Any:
    totals = lake.counts["kang"].groupby(lake.cells["donor_id"]).sum()
    share = totals.div(totals.sum(axis=1), axis=0) * 1e6
    told = share.stack().rename("per_million").reset_index()
    return told.set_axis(["label", "gene_id", "per_million"], axis=1)


def table_of(one: Any, other: Any) -> dict[str, Any]:
    a, b = one > 0, other > 0
    varied = one.nunique() > 1 and other.nunique() > 1
    return {
        "n_both": (a & b).sum(),
        "n_only_one": (a & ~b).sum(),
        "n_only_other": (~a & b).sum(),
        "n_neither": (~a & ~b).sum(),
        "correlation": np.corrcoef(np.log1p(one), np.log1p(other))[0, 1] if varied else np.nan,
    }


@answers(12)
def _(lake: RealLake) -> Any:
    one, other = lake.per_10k("CD3D"), lake.per_10k("MS4A1")
    return pd.DataFrame([{"n_measured": one.notna().sum(), **table_of(one, other)}])


@answers(13)
def _(lake: RealLake) -> Any:
    one, other = lake.per_10k("NKG7"), lake.per_10k("GNLY")
    groups = lake.cells.groupby("cell_type", dropna=False).groups.items()
    return pd.DataFrame(
        [{"label": label, **table_of(one.loc[i], other.loc[i])} for label, i in groups]
    )


@answers(14)
def _(lake: RealLake) -> Any:
    both = (lake.gene("CD3D") > 0) & (lake.gene("CD79A") > 0)
    return lake.cells.loc[both, ["cell_id"]]


@answers(15)
def _(lake: RealLake) -> Any:
    cells = lake.cells
    told = ranked(lake, cells["source_id"] == "pbmc3k", cells["cell_type"] == "B")
    return told.drop(columns=["n_target", "n_rest"]).head(25)


@answers(16)
def _(lake: RealLake) -> Any:
    cells = lake.cells
    chosen = cells["cell_type"].isin(["Memory CD4 T", "Naive CD4 T"])
    told = ranked(lake, chosen, cells["cell_type"] == "Memory CD4 T")
    return told[["symbol", "n_target", "n_rest", "score"]].head(25)


@answers(17)
def _(lake: RealLake) -> Any:
    values: Any = [np.log1p(lake.per_10k(name)) for name in ("NKG7", "GNLY", "GZMB")]
    score: Any = pd.concat(values, axis=1).mean(axis=1)
    return score.rename("score").groupby(lake.cells["cell_type"], dropna=False).mean().reset_index()


@answers(18)
def _(lake: RealLake) -> Any:
    told = lake.cells.groupby("source_id")["n_counts"].agg(["min", "median", "max"])
    return told.set_axis(["least", "median", "most"], axis=1).reset_index()


@answers(19)
def _(lake: RealLake) -> Any:
    read = {"pbmc3k": 2700, "kang": 8684}
    n = [read[name] - len(lake.counts[name]) for name in FILES]
    return pd.DataFrame({"source_id": list(FILES), "n": n})


@answers(20)
def _(lake: RealLake) -> Any:
    cells = lake.cells[lake.cells["cell_type"] == "CD14+ Mono"]
    share = lake.counts["pbmc3k"].loc[cells.index].sum() / cells["n_counts"].sum()
    told = share.sort_values(ascending=False).head(20).rename("share").reset_index()
    return told.set_axis(["gene_id", "share"], axis=1)


@pytest.mark.parametrize("number", range(1, 21))
def test_the_answer_to_a_question_of_the_page_is_that_of_pandas(
    lake: RealLake, number: int
) -> None:
    found = lake.corpus.sql(queries()[1][number]).to_pandas()
    expected = ORACLES[number](lake)
    assert list(found) == list(expected)
    rtol = 2e-4 if number in (15, 16) else 1e-9  # scanpy keeps scores in single precision
    pd.testing.assert_frame_equal(*in_order(found, expected), rtol=rtol, atol=1e-12)


def test_the_page_opens_with_a_query_that_is_wrong_and_one_that_is_right(lake: RealLake) -> None:
    wrong, right = (lake.corpus.sql(query).to_pandas() for query in queries()[0])
    counts = lake.gene("CD4")
    stored = counts[counts > 0]
    assert wrong["source_id"].tolist() == ["pbmc3k"]
    assert wrong["mean"][0] == pytest.approx(stored.mean())
    told = grouped(lake, "CD4", lake.cells["source_id"].rename("label"))
    told = told.drop(columns="mean_log1p")
    assert list(right) == list(told)
    pd.testing.assert_frame_equal(*in_order(right, told), rtol=1e-9, atol=1e-12)
    assert np.isnan(right.set_index("label").loc["kang", "mean"])
    text = PAGE.read_text(encoding="utf-8")
    measured = counts.dropna()
    for figure in (f"{stored.mean():.2f}", f"{measured.mean():.3f}", f"{len(stored)} of 2,635"):
        assert figure in text
