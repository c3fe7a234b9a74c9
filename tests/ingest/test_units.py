import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.corpus.medians import medians_of
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.payload.segments import Segment
from cytolake.corpus.store import Corpus
from cytolake.ingest.judging import units_of
from cytolake.ingest.quality import DUPLICATE, freeze_thresholds
from cytolake.ingest.report import receipt_of
from cytolake.ingest.sources_toml import SourceEntry
from cytolake.ingest.survey import find_duplicates, open_survey, survey_source
from cytolake.ingest.units import measure_unit, prepare_unit, read_measures
from cytolake.platform.errors import NotRawCountsError
from scipy import sparse


@pytest.fixture
def survey(tmp_path: Path, reference_table: Path):
    def make(adata: Any, *, unit_cells: int = 8192, name: str = "s", **values: Any):
        path = tmp_path / f"{name}.h5ad"
        adata.write_h5ad(path)
        return survey_source(
            SourceEntry(path=str(path), **values), source_id=name, path=path, metadata=None,
            sha256="0" * 64, recipe_hash="1" * 64, reference=reference_table,
            unit_cells=unit_cells, folder=tmp_path / f"staging-{name}-{unit_cells}",
        )  # fmt: skip

    return make


def prepare(survey: Any, folder: Any, corpus_uuid: str = "u"):
    """Both passes of a source, in this process."""
    opened = open_survey(survey.model_dump_json())
    units = units_of(survey)
    measures = read_measures([measure_unit(opened, unit) for unit in units])
    n_mitochondrial = int(opened.genes.mitochondrial_g.sum())
    thresholds = freeze_thresholds(measures, survey.entry.quality, panel=opened.genes.panel,
                                   n_mitochondrial_genes=n_mitochondrial)  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    done = [
        prepare_unit(opened, unit, thresholds, segments=folder, corpus_uuid=corpus_uuid)
        for unit in units
    ]
    return done, thresholds


def cells_of(prepared: Any):
    tables = [Segment.open(unit.segment).record.cells() for unit in prepared]
    barcodes = [b for table in tables for b in table.column("barcode").to_pylist()]
    hashes = [h for table in tables for h in table.column("content_hash").to_pylist()]
    return barcodes, hashes


def test_the_kept_cells_do_not_depend_on_the_size_of_units(adata: Any, survey: Any, tmp_path: Path):
    whole, thresholds = prepare(survey(adata), tmp_path / "whole")
    cut, same = prepare(survey(adata, unit_cells=7), tmp_path / "cut")
    assert len(whole) == 1 and len(cut) == 6
    assert thresholds == same
    assert cells_of(whole) == cells_of(cut)
    kept = sum(unit.n_kept for unit in cut)
    assert kept + sum(sum(unit.dropped.values()) for unit in cut) == 40
    assert 30 <= kept < 40


def test_filters_are_counted_by_column_and_take_cells_out_of_the_statistics(
    adata: Any, survey: Any, tmp_path: Path
):
    adata.obs["qc"] = [f"{i != 7}" for i in range(40)]
    filters = {"keep": {"qc": ["True"]}, "drop": {"cell_type": ["B"]}, "max": {"score": 0.9}}
    made = survey(adata, name="with", filters=filters)
    (unit,), thresholds = prepare(made, tmp_path / "x")
    (cut, *_), same = prepare(
        survey(adata, unit_cells=7, name="with", filters=filters), tmp_path / "cut"
    )
    assert thresholds == same and cut.unit.stop == 7
    n_odd = 20 - 1  # cell 7 is a B cell, too, and bears the first column's name
    by_score = int((adata.obs["score"][::2] > 0.9).sum())
    counted = {reason: n for reason, n in unit.dropped.items() if reason.startswith("filter")}
    expected = {"filter:qc": 1, "filter:cell_type": n_odd, "filter:score": by_score}
    assert counted == {reason: n for reason, n in expected.items() if n}
    left = adata[[i for i in range(0, 40, 2) if adata.obs["score"].iloc[i] <= 0.9]].copy()
    _, alone = prepare(survey(left, name="without"), tmp_path / "alone")
    assert alone.bounds == thresholds.bounds
    assert sum(unit.dropped.values()) + unit.n_kept == 40


def test_a_filter_for_a_value_that_no_cell_has_is_noted(adata: Any, survey: Any):
    made = survey(adata, filters={"drop": {"cell_type": ["B", "b"]}})
    assert made.notes == ("filters.drop.cell_type: 1 of 2 values stand in no cell",)


@pytest.mark.parametrize("use", ["refuse-in-medians", "use"])
def test_a_panel_skips_mitochondria_and_shapes_medians_only_if_asked(
    adata: Any, survey: Any, tmp_path: Path, use: Any
):
    corpus = Corpus.create(tmp_path / "lake")
    for name, part in (("whole", adata), ("panel", adata[:, [*range(6), *range(20, 26)]].copy())):
        part.obs_names = [f"{name}{i}" for i in range(40)]
        if name == "panel":
            part.X.data[:] += 1  # other counts: no cell is a copy of the whole's
        made = survey(part, name=name, panel=use).model_copy(update={"sha256": name[0] * 64})
        done, thresholds = prepare(made, corpus.segments_folder, corpus.uuid)
        opened = open_survey(made.model_dump_json())
        receipt = receipt_of(opened, n_bytes=1, thresholds=thresholds, units=done)
        assert receipt.panel == (name == "panel")
        assert ("mitochondrial" in receipt.skipped_rules) == receipt.panel
        corpus.commit_source(receipt, [SegmentRecord.load(unit.segment) for unit in done])
    lake = Corpus.open(tmp_path / "lake")
    both = medians_of(lake, lake.select())
    whole = medians_of(lake, lake.select("source_id = 'whole'"))
    assert (both.digest != whole.digest) == (use == "use")


def test_every_storage_of_the_same_counts_gives_the_same_hashes(
    adata: Any, survey: Any, tmp_path: Path
):
    dense = adata.X.toarray()
    found = []
    for name, kind in {"a": sparse.csr_matrix, "b": sparse.csc_matrix, "c": np.asarray}.items():
        adata.X = kind(dense)
        prepared, _ = prepare(survey(adata, unit_cells=16, name=name), tmp_path / name)
        found.append(cells_of(prepared))
    assert found[0] == found[1] == found[2]


def test_the_segment_holds_the_sources_counts_and_columns(adata: Any, survey: Any, tmp_path: Path):
    made = survey(adata, columns={"cell_type": "cell_type", "donor_id": "donor"})
    (unit,), _ = prepare(made, tmp_path / "x")
    segment = Segment.open(unit.segment)
    table = segment.record.cells()
    rows = [int(barcode[4:]) for barcode in table.column("barcode").to_pylist()]
    indptr, indices, counts = segment.read(np.arange(len(rows)))
    stored = sparse.csr_matrix((counts, indices, indptr), shape=(len(rows), 30)).toarray()
    assert segment.gene_ids.tolist() == sorted(adata.var_names)
    assert (stored == adata.X.toarray()[rows]).all()
    assert table.column("donor_id").to_pylist() == [str(adata.obs["donor"].iloc[r]) for r in rows]
    assert table.column("n_counts").to_pylist() == adata.X.toarray()[rows].sum(axis=1).tolist()
    fractions = adata.X.toarray()[rows][:, 20:26].sum(axis=1) / adata.X.toarray()[rows].sum(axis=1)
    assert table.column("mito_fraction").to_pylist() == pytest.approx(fractions.tolist())


@pytest.mark.parametrize("unit_cells", [5, 8192])
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_rows_with_one_barcode_are_summed_counted_and_dropped(
    adata: Any, survey: Any, tmp_path: Path, unit_cells: int
):
    names = adata.obs_names.tolist()
    names[20] = names[21] = names[39] = "cell3"
    adata.obs_names = names
    made = survey(adata, unit_cells=unit_cells)
    done, _ = prepare(made, tmp_path / "x")
    assert sum(unit.dropped.get(DUPLICATE, 0) for unit in done) == 3
    expected = adata.X.toarray()[[3, 20, 21, 39]].sum(axis=0)
    for unit in done:
        table = Segment.open(unit.segment).record.cells()
        for row, barcode in enumerate(table.column("barcode").to_pylist()):
            if barcode == "cell3":
                _, indices, counts = Segment.open(unit.segment).read(np.array([row]))
                assert counts.tolist() == expected[expected > 0].tolist()
                assert indices.tolist() == np.flatnonzero(expected).tolist()
                assert table.column("n_counts")[row].as_py() == expected.sum()
    assert cells_of(done)[0].count("cell3") == 1


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_rows_with_one_barcode_may_be_kept_apart(adata: Any, survey: Any, tmp_path: Path):
    adata.obs_names = ["same"] * 40
    made = survey(adata, duplicate_barcodes="keep")
    (unit,), _ = prepare(made, tmp_path / "x")
    assert unit.n_kept > 30


def test_a_prepared_unit_is_adopted_and_a_damaged_one_written_again(
    adata: Any, survey: Any, tmp_path: Path
):
    made = survey(adata, unit_cells=20)
    first, _ = prepare(made, tmp_path / "x")
    shutil.rmtree(first[0].segment / "rna.zarr" / "X")
    again, _ = prepare(made, tmp_path / "x")
    assert [unit.adopted for unit in first] == [False, False]
    assert [unit.adopted for unit in again] == [False, True]
    assert [unit.n_kept for unit in again] == [unit.n_kept for unit in first]
    assert [unit.dropped for unit in again] == [unit.dropped for unit in first]


def test_one_value_that_is_no_count_stops_pass_one(adata: Any, survey: Any, tmp_path: Path):
    made = survey(adata, unit_cells=20)
    adata.X.data[-1] = 2.5
    adata.write_h5ad(made.path)
    opened = open_survey(made.model_dump_json())
    measure_unit(opened, units_of(made)[0])
    with pytest.raises(NotRawCountsError, match=r"X: 2\.5 at row 39"):
        measure_unit(opened, units_of(made)[1])


def test_duplicates_point_to_the_first_row():
    found = find_duplicates(np.array(["b", "a", "b", "c", "a", "b"], dtype=object))
    assert found.rows.tolist() == [2, 4, 5]
    assert found.into.tolist() == [0, 1, 0]


def test_real_cells_are_judged_as_a_numpy_computation_judges_them(
    resources: Path, human: GeneReference, tmp_path: Path
):
    import anndata as ad

    path = resources / "pbmc3k_10x/pbmc3k_raw_labelled.h5ad"
    table = resources / "reference/gene_table_human_gencode.tsv.gz"
    made = survey_source(
        SourceEntry(path=str(path)), source_id="pbmc3k", path=path, metadata=None, sha256="0" * 64,
        recipe_hash="1" * 64, reference=table, unit_cells=1000, folder=tmp_path / "staging",
    )  # fmt: skip
    done, thresholds = prepare(made, tmp_path / "x")
    data: Any = ad.read_h5ad(path)
    counts = data.X.toarray()
    totals = counts.sum(axis=1, dtype=np.float64)
    symbols = np.array(data.var["gene_symbols"].astype(str))
    biotypes = dict(zip(human.gene_ids, human.biotypes, strict=True))
    coding = np.array([biotypes.get(g, "") in ("protein_coding", "miRNA") for g in data.var_names])
    fractions = counts[:, np.char.startswith(symbols.astype(str), "MT-")].sum(axis=1) / totals
    keep = np.abs(totals - totals.mean()) <= 3 * totals.std()
    keep &= np.abs(fractions - fractions.mean()) <= 3 * fractions.std()
    keep &= (counts[:, coding] > 0).sum(axis=1) >= 7
    assert cells_of(done)[0] == data.obs_names[keep].tolist()
    assert thresholds.bounds["total_counts_high"] == pytest.approx(
        totals.mean() + 3 * totals.std(), rel=1e-12
    )
