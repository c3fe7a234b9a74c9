"""Bulk RNA and protein tables as R writes them: whole ingests through Ray, answers as pandas'."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.bulk import BULK_ALONE
from cytolake.corpus.frozen_medians import make_medians
from cytolake.corpus.medians import medians_of
from cytolake.corpus.payload.verification import verify_segment
from cytolake.corpus.store import Corpus
from cytolake.ingest.planning import plan_report
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile
from cytolake.platform.errors import NoCellsError
from cytolake.platform.session import ray_session
from cytolake.platform.settings import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Observation names are not unique"),
    pytest.mark.filterwarnings("ignore:.*pull_on_update.*"),
]

N_SAMPLES = 12
SAMPLES = [f"TCGA-02-00{i:02d}-01" for i in range(N_SAMPLES)]
PROTEINS = ["Akt_pS473", "EGFR", "14-3-3_beta", "p53", "HER2"]


@pytest.fixture(scope="module")
def session():
    with ray_session(n_cpus=2):
        yield


def expected_counts(reference: Any) -> pd.DataFrame:
    """Genes x samples of RSEM's expected counts: some with a fraction; one sample is huge."""
    random = np.random.default_rng(11)
    counts = random.negative_binomial(2, 0.01, (30, N_SAMPLES)).astype(float)
    counts[random.random(counts.shape) < 0.3] += 0.37
    counts[:, 3] *= 400
    return pd.DataFrame(
        counts.round(2), index=pd.Index(list(reference.symbols)), columns=pd.Index(SAMPLES)
    )


def rppa() -> pd.DataFrame:
    """Samples x proteins of real values: negative ones, a 0, some not measured; no first sample."""
    random = np.random.default_rng(12)
    values = random.normal(0, 1, (N_SAMPLES, len(PROTEINS))).round(4)
    values[2, 1] = 0.0
    values[random.random(values.shape) < 0.2] = np.nan
    values[5] = np.nan  # in the table, and nothing measured
    names = [*SAMPLES[1:][::-1], "TCGA-99-0000-01"]
    return pd.DataFrame(values, index=pd.Index(names), columns=pd.Index(PROTEINS))


def write_as_r(frame: pd.DataFrame, path: Path, delimiter: str = "\t") -> None:
    """`write.table(x, quote = TRUE)`: the corner cell is missing, NA is a bare word."""
    lines = [delimiter.join(f'"{name}"' for name in frame.columns)]
    for name, row in frame.iterrows():
        words = ["NA" if pd.isna(value) else f"{value:.10g}" for value in row]
        lines.append(delimiter.join([f'"{name}"', *words]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def tables(tmp_path: Path, reference: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    rna, proteins = expected_counts(reference), rppa()
    write_as_r(rna, tmp_path / "rna.tsv")
    write_as_r(proteins, tmp_path / "rppa.csv", ",")
    return rna, proteins


BULK = SourceEntry(path="rna.tsv", kind="bulk", expected_counts="round", proteins="rppa.csv")


def in_sql(corpus: Corpus, view: str, column: str) -> pd.DataFrame:
    rows = corpus.sql(
        f"SELECT barcode, {column}, {'count' if view == 'expression' else 'value'} AS v "
        f"FROM {view} JOIN (SELECT cell_id, barcode FROM cells) USING (cell_id)"
    )
    return rows.to_pandas().pivot(index="barcode", columns=column, values="v").sort_index()


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> bool:
    wanted = wanted.loc[sorted(wanted.index), found.columns]
    return found.index.tolist() == wanted.index.tolist() and np.array_equal(
        found.to_numpy(), wanted.to_numpy(dtype=found.to_numpy().dtype), equal_nan=True
    )


def check_answers(corpus: Corpus, rna: pd.DataFrame, proteins: pd.DataFrame) -> None:
    """SQL and MuData say what the two tables say."""
    counts = in_sql(corpus, "expression", "symbol").fillna(0)
    assert counts.shape == (N_SAMPLES, 30) and same(counts, rna.T.round())
    measured = proteins.loc[proteins.index.isin(SAMPLES)].dropna(how="all")
    values = in_sql(corpus, "protein_abundance", "feature_id")
    assert values.shape == measured.shape and same(values, measured)
    assert (values == 0).to_numpy().sum() == (measured == 0).to_numpy().sum() == 1
    mod = corpus.to_mudata()["protein_abundance"]
    frame = mod.to_df().set_axis(mod.obs["barcode"].to_numpy()).sort_index()
    assert mod.X.dtype == np.float32 and same(frame, measured)
    n_measured = measured.notna().sum()[mod.var_names].tolist()
    assert mod.var["n_cells_measured"].tolist() == n_measured


def test_a_tcga_table_and_its_proteins_land_and_answer_as_pandas_does(
    session: Any, tables: Any, tmp_path: Path, run: Any
):
    rna, proteins = tables
    report = run(BULK, unit_cells=5)  # three segments
    (source,) = report.sources
    assert source.status == "added", source.error
    receipt = source.receipt
    assert (receipt.n_read, receipt.n_kept, receipt.kind) == (N_SAMPLES, N_SAMPLES, "bulk")
    assert receipt.skipped_rules["total_counts"] == "switched off"
    assert {"mitochondrial", "mutational_burden"} < set(receipt.skipped_rules)
    said = " ".join(receipt.warnings)
    values = rna.to_numpy()
    n_broken = int((values != np.floor(values)).sum())
    assert f"{n_broken} of {int((values > 0).sum())} values were no integers" in said
    assert "total_counts, mitochondrial, mutational_burden judge cells and are off" in said
    assert "5 proteins of rppa.csv in 11 of 12 samples" in said
    assert "1 samples of the table are not in the source" in said
    corpus = Corpus.open(tmp_path / "lake")
    check_answers(corpus, rna, proteins)
    assert corpus.verify(deep=True) == []
    cells = corpus.sql("SELECT DISTINCT suspension_type FROM cells").to_pylist()
    assert cells == [{"suspension_type": "na"}]
    features = corpus.sql("SELECT DISTINCT modality, feature_type FROM features").to_pylist()
    assert features == [{"modality": "protein_abundance", "feature_type": "Abundance"}]
    assert run(BULK, unit_cells=5).sources[0].status == "present"
    assert corpus.compact(cells_per_segment=100).n_after == 1
    after = Corpus.open(corpus.folder)
    check_answers(after, rna, proteins)
    assert after.verify(deep=True) == []
    after.delete(f"barcode = '{SAMPLES[4]}'")
    Corpus.open(corpus.folder).vacuum(older_than_ms=0)
    thinned = Corpus.open(corpus.folder)
    left = in_sql(thinned, "protein_abundance", "feature_id")
    assert SAMPLES[4] not in left.index and len(left) == 9
    assert thinned.verify(deep=True) == []


def test_every_flipped_bit_of_the_values_is_found(
    session: Any, tables: Any, tmp_path: Path, run: Any
):
    run(BULK)
    (folder,) = (tmp_path / "lake" / "segments").iterdir()
    files = [p for p in folder.rglob("*") if p.is_file() and "protein_abundance" in str(p)]
    assert len(files) > 8 and verify_segment(folder, deep=True) == []
    for path in files:
        good = path.read_bytes()
        path.chmod(0o644)
        for place in {0, len(good) // 2, len(good) - 1}:
            path.write_bytes(
                good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :] if good else b"x"
            )
            assert verify_segment(folder, deep=True), path
        path.write_bytes(good)
    assert verify_segment(folder, deep=True) == []


def test_samples_may_lie_down_and_proteins_across_or_the_other_way_round(
    session: Any, tables: Any, tmp_path: Path, run: Any
):
    rna, proteins = tables
    as_rsem = rna.set_axis([f"{name}|{row}" for row, name in enumerate(rna.index)])
    as_rsem.T.to_csv(tmp_path / "across.csv.gz")
    proteins.T.to_csv(tmp_path / "down.tsv", sep="\t")
    entry = {"kind": "bulk", "expected_counts": "round", "proteins": "down.tsv"}
    report = run(SourceEntry(path="across.csv.gz", **entry))
    assert report.sources[0].status == "added", report.sources[0].error
    check_answers(Corpus.open(tmp_path / "lake"), rna, proteins)
    adata = ad.AnnData(
        rna.T.to_numpy(np.float32),
        obs=pd.DataFrame({"disease": ["tumour"] * N_SAMPLES}, index=rna.columns),
        var=pd.DataFrame(index=rna.index),
    )
    adata.write_h5ad(tmp_path / "rna.h5ad")
    report = run(SourceEntry(path="rna.h5ad", **entry), name="other")
    assert report.sources[0].status == "added", report.sources[0].error
    check_answers(Corpus.open(tmp_path / "other"), rna.astype(np.float32), proteins)


def test_bulk_samples_are_left_out_beside_cells_and_chosen_alone(
    session: Any, tables: Any, adata: Any, tmp_path: Path, run: Any
):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    run(BULK.model_copy(update={"proteins": None}), SourceEntry(path="cells.h5ad"), unit_cells=100)
    corpus = Corpus.open(tmp_path / "lake")
    kinds = corpus.sql("SELECT source_id, kind, n_kept FROM sources ORDER BY 1").to_pylist()
    assert [(row["source_id"], row["kind"]) for row in kinds] == [
        ("cells", "cells"),
        ("rna", "bulk"),
    ]
    n_cells = kinds[0]["n_kept"]
    learnt = corpus.select()
    assert (learnt.n_cells, learnt.n_bulk_left_out) == (n_cells, N_SAMPLES)
    assert corpus.select(primary_only=False).n_cells == n_cells + N_SAMPLES
    alone = corpus.select(BULK_ALONE)
    assert (alone.n_cells, alone.n_bulk_left_out) == (N_SAMPLES, 0)
    shown = make_medians(corpus, tmp_path / "m.json", settings=Settings(home=tmp_path))
    assert f"left out, for they are no cells: {N_SAMPLES} bulk samples" in str(shown[1])
    apart = medians_of(corpus, learnt)
    assert apart.digest == medians_of(corpus, corpus.select("source_id = 'cells'")).digest
    assert apart.digest != medians_of(corpus, alone).digest
    genes = corpus.sql(
        "SELECT segment, list(gene_id ORDER BY gene_id) AS g FROM measured GROUP BY 1"
    )
    assert len(genes) == 2 and len({*map(str, genes["g"].to_pylist())}) == 1
    assert corpus.compact(cells_per_segment=10_000).n_after == 0  # not mixed, though alike in genes
    assert Corpus.open(corpus.folder).select().n_bulk_left_out == N_SAMPLES
    with pytest.raises(NoCellsError):
        corpus.select("source_id = 'nobody'")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expected_counts": None}, 'set expected_counts = "round" for this source'),
        ({"proteins": "absent.csv"}, r"absent\.csv: no such file"),
        ({"path": "logs.tsv"}, "these are logarithms, not expected counts"),
        ({"path": "tpm.tsv"}, "every sample's total is 1,000,000: these are TPM or CPM"),
        ({"path": "negative.tsv"}, "no raw counts"),
        ({"path": "portal.tsv"}, "'Entrez_Gene_Id' would be read as samples: they describe genes"),
        ({"path": "twice.tsv"}, "1 samples bear the name of an earlier one, the first in row 7"),
        ({"path": "twice.tsv", "duplicate_barcodes": "keep"}, "rows 2 and 7 of the source have"),
        ({"proteins": "strangers.csv"}, "no sample in common with the source"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_bad_table_is_refused_with_its_reason(
    session: Any, tables: Any, tmp_path: Path, run: Any, change: Any, message: str
):
    rna, proteins = tables
    write_as_r(np.log2(rna + 1), tmp_path / "logs.tsv")
    write_as_r(rna / rna.sum() * 1e6, tmp_path / "tpm.tsv")
    write_as_r(rna - 90, tmp_path / "negative.tsv")
    portal = rna.copy()
    portal.insert(0, "Entrez_Gene_Id", range(1, 31))
    write_as_r(portal, tmp_path / "portal.tsv")
    names = [*SAMPLES[:7], SAMPLES[2], *SAMPLES[8:]]
    write_as_r(rna.set_axis(names, axis=1), tmp_path / "twice.tsv")
    write_as_r(proteins.set_axis([f"x{i}" for i in range(12)]), tmp_path / "strangers.csv")
    (source,) = run(BULK.model_copy(update=change)).sources
    assert source.status == "refused"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(source.error)
    assert "TCGA" not in str(source.error)  # errors go on record, where no sample may be named


def test_a_plan_tells_the_rounding_and_writes_a_toml_that_gives_it_again(
    tables: Any, tmp_path: Path, reference_table: Path, monkeypatch: pytest.MonkeyPatch
):
    from cytolake.ingest import planning
    from cytolake.ingest.plan_toml import plan_toml
    from cytolake.ingest.sources_toml import load_sources

    monkeypatch.setattr(planning, "gene_table", lambda settings: reference_table)
    asked = SourceEntry.model_validate(
        {**BULK.model_dump(exclude_unset=True), "quality": {"total_counts_sd": 3}}
    )
    plan = SourcesFile(source=(asked,), folder=tmp_path)
    report = plan_report(plan, Settings(home=tmp_path), n_cpus=1)
    (planned,) = report.sources
    assert planned.error is None
    assert planned.proof.endswith("non-negative integers once rounded")
    (tmp_path / "again.toml").write_text(plan_toml(report))
    (again,) = load_sources(tmp_path / "again.toml").source
    assert again.quality == asked.quality and again.kind == "bulk"
    assert again.quality.total_counts_sd == 3 and again.quality.mitochondrial_sd is None
    assert again.proteins == str(tmp_path / "rppa.csv") and again.expected_counts == "round"
