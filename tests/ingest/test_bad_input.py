"""Bad input from a file to a corpus, without Ray: what lands is what the file said, in SQL too."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.payload.records import SegmentRecord
from cytolake.corpus.store import Corpus
from cytolake.ingest.admission import Candidate
from cytolake.ingest.report import receipt_of
from cytolake.ingest.sources.formats import open_source, stamp_of
from cytolake.ingest.sources.h5ad import H5adSource
from cytolake.ingest.sources.spool import spool
from cytolake.ingest.sources_toml import SourceEntry
from cytolake.ingest.survey import open_survey, survey_source
from cytolake.platform.errors import NoGenesError, SourceError
from scipy import sparse

from .test_h5ad import whole
from .test_tenx import write_h5
from .test_units import prepare


@pytest.fixture
def land(tmp_path: Path, reference_table: Path):
    """Bring a file into one corpus, through the functions that an ingest calls."""
    Corpus.create(tmp_path / "lake")

    def call(path: Path, *, sha256: str | None = None, **values: Any):
        corpus = Corpus.open(tmp_path / "lake")
        survey = survey_source(
            SourceEntry(path=str(path), quality={"total_counts_sd": "off"}, **values),
            source_id=path.stem, path=path, metadata=None,
            sha256=sha256 or path.stem.encode().hex().ljust(64, "0"), recipe_hash="1" * 64,
            reference=reference_table, unit_cells=16, folder=tmp_path / f"staging-{path.stem}",
        )  # fmt: skip
        units, thresholds = prepare(survey, corpus.segments_folder, corpus.uuid)
        opened = open_survey(survey.model_dump_json())
        receipt = receipt_of(opened, n_bytes=1, thresholds=thresholds, units=units)
        records = [SegmentRecord.load(unit.segment) for unit in units]
        corpus.commit_source(receipt, records)
        return Corpus.open(tmp_path / "lake")

    return call


def counts_in(lake: Corpus, source_id: str) -> dict[str, dict[str, int]]:
    """Barcode -> gene -> count, of a source's cells, by SQL."""
    found: dict[str, dict[str, int]] = {}
    rows = lake.sql(
        "SELECT c.barcode, e.gene_id, e.count FROM cells c JOIN expression e USING (cell_id) "
        f"WHERE c.source_id = '{source_id}'"
    ).to_pylist()
    for row in rows:
        found.setdefault(row["barcode"], {})[row["gene_id"]] = row["count"]
    return found


def test_large_counts_empty_cells_and_empty_genes_land_as_they_are(
    adata: Any, tmp_path: Path, land: Any
):
    counts = adata.X.toarray()
    counts[3, 4], counts[4, 5] = 65_535, 65_536
    counts[5, 6] = 2**31 + 7
    counts[:, 11] = 0
    adata.X = sparse.csr_matrix(counts.astype(np.float64))
    adata.write_h5ad(tmp_path / "a.h5ad")
    lake = land(tmp_path / "a.h5ad")
    found = counts_in(lake, "a")
    assert "cell8" not in found  # it has no count
    why = lake.sql("SELECT reason FROM dropped WHERE barcode = 'cell8'").to_pylist()
    assert why == [{"reason": "min_genes"}]
    for row, name in enumerate(adata.obs_names):
        if name in found:
            expected = dict(zip(adata.var_names, counts[row].astype(int).tolist(), strict=True))
            assert found[name] == {gene: count for gene, count in expected.items() if count}
    assert {"cell3", "cell4", "cell5"} <= found.keys()
    # A gene without counts was measured all the same: it is in the segment, and no NULL.
    gene = adata.var_names[11]
    assert lake.sql(f"SELECT count(*) AS n FROM measured WHERE gene_id = '{gene}'").to_pylist() == [
        {"n": 3}
    ]
    assert lake.verify(deep=True) == []


def test_a_source_of_empty_cells_is_refused(adata: Any, tmp_path: Path, land: Any):
    adata.X = sparse.csr_matrix(adata.X.shape, dtype=np.float32)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(SourceError, match=r"a\.h5ad: no raw counts .* X: holds no value but 0"):
        land(tmp_path / "a.h5ad")


@pytest.mark.parametrize("n_cells", [0, 1])
def test_no_cell_is_refused_and_one_cell_lands(adata: Any, tmp_path: Path, land: Any, n_cells: int):
    adata[:n_cells].copy().write_h5ad(tmp_path / "a.h5ad")
    if n_cells:
        assert len(counts_in(land(tmp_path / "a.h5ad"), "a")) == 1
    else:
        with pytest.raises(SourceError, match=r"a\.h5ad: "):
            land(tmp_path / "a.h5ad")


def test_a_source_without_genes_is_refused(adata: Any, tmp_path: Path, land: Any):
    adata[:, :0].copy().write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(SourceError, match=r"a\.h5ad: "):
        land(tmp_path / "a.h5ad")


ODD_NAMES = {
    "reserved": ["cell_id", "_file", "_file_", "file_row_number", "filename", "segment", "row",
                 "barcode", "n_counts", "content_hash", "is_primary", "source_id"],
    "by case": ["Age", "age", "AGE", "age_1", "CELL_ID", "Barcode", "_FILE"],
    "odd": ["a b", "n\ntwo", 'q"uote', "semi;colon", "ümlaut", "🧬", "select", "1st", "%", "'; --",
            "tab\t"],
}  # fmt: skip


@pytest.mark.parametrize("names", ODD_NAMES.values(), ids=list(ODD_NAMES))
def test_columns_of_any_name_land_and_are_asked_for_in_sql(
    adata: Any, tmp_path: Path, land: Any, names: list[str]
):
    adata.write_h5ad(tmp_path / "plain.h5ad")
    adata.obs = pd.DataFrame(
        {name: [f"{i}-{row}" for row in range(40)] for i, name in enumerate(names)},
        index=adata.obs_names,
    )
    adata.write_h5ad(tmp_path / "odd.h5ad")
    land(tmp_path / "plain.h5ad")
    lake = land(tmp_path / "odd.h5ad")
    table = lake.sql(
        "SELECT o.* FROM source_obs o JOIN cells c USING (cell_id) WHERE c.source_id = 'odd' "
        "ORDER BY c.cell_id"
    )
    barcodes = lake.sql(
        "SELECT barcode FROM cells WHERE source_id = 'odd' ORDER BY cell_id"
    ).to_pylist()
    rows = [adata.obs_names.get_loc(row["barcode"]) for row in barcodes]
    shown = [tuple(column.to_pylist()) for column in table.columns]
    for i in range(len(names)):
        assert tuple(f"{i}-{row}" for row in rows) in shown, names[i]
    given: Any = lake.to_anndata("source_id = 'odd'").obs
    at = [adata.obs_names.get_loc(str(name).removeprefix("odd:")) for name in given.index]
    values = [list(map(str, given.iloc[:, place])) for place in range(given.shape[1])]
    for i in range(len(names)):
        assert [f"{i}-{row}" for row in at] in values, names[i]
    assert lake.verify(deep=True) == []


def test_columns_of_mixed_type_and_of_no_utf_8_land_as_text(adata: Any, tmp_path: Path, land: Any):
    adata.obs["mixed"] = [str(i) if i % 2 else "x" for i in range(40)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        obs: Any = file["obs"]
        obs["city"] = np.array([b"Gen\xe8ve", "Genève".encode()] * 20)
        obs.attrs["column-order"] = np.array(
            ["mixed", "city", "d\xe9p\xf4t", "score"], dtype=object
        )
        obs["d\xe9p\xf4t"] = np.arange(40)
    lake = land(tmp_path / "a.h5ad")
    rows = lake.sql('SELECT mixed, city, "dépôt" FROM source_obs').to_pylist()
    assert {row["city"] for row in rows} == {"Gen\\xe8ve", "Genève"}
    assert all(row["mixed"] in ("x", str(row["dépôt"])) for row in rows)


def test_an_age_that_is_text_in_one_source_and_a_number_in_another_is_asked_for_together(
    adata: Any, tmp_path: Path, land: Any
):
    adata.obs["age"] = ["52 y"] * 40
    adata.write_h5ad(tmp_path / "text.h5ad")
    adata.obs["age"] = [52] * 40
    adata.X.data[:] += 1
    adata.write_h5ad(tmp_path / "number.h5ad")
    adata.obs["age"] = [52.5] * 40
    adata.X.data[:] += 1
    adata.write_h5ad(tmp_path / "half.h5ad")
    for name in ("number", "half", "text"):
        lake = land(tmp_path / f"{name}.h5ad")
    ages = lake.sql(
        "SELECT DISTINCT c.source_id, o.age FROM source_obs o JOIN cells c USING (cell_id) "
        "ORDER BY 1"
    ).to_pylist()
    assert [(row["source_id"], row["age"]) for row in ages] == [
        ("half", "52.5"), ("number", "52"), ("text", "52 y")
    ]  # fmt: skip
    given: Any = lake.to_anndata("true").obs
    assert len(given) == lake.sql("SELECT count(*) AS n FROM cells").to_pylist()[0]["n"]


def test_two_sources_with_the_same_barcodes_and_other_counts_stay_two(
    adata: Any, tmp_path: Path, land: Any
):
    adata.write_h5ad(tmp_path / "one.h5ad")
    other = adata.copy()
    other.X = sparse.csr_matrix(adata.X.toarray()[::-1])
    other.write_h5ad(tmp_path / "two.h5ad")
    land(tmp_path / "one.h5ad")
    lake = land(tmp_path / "two.h5ad")
    dense = adata.X.toarray()
    for name, counts in (("one", dense), ("two", dense[::-1])):
        found = counts_in(lake, name)
        assert len(found) > 30
        for barcode, genes in found.items():
            row = counts[adata.obs_names.get_loc(barcode)]
            assert sum(genes.values()) == row.sum()
    assert {"cell0", "cell39"} <= counts_in(lake, "one").keys() & counts_in(lake, "two").keys()


def csc(adata: Any, path: Path, **parts: Any) -> H5adSource:
    """An h5ad of 3 cells x 2 genes by columns, with such parts."""
    small = adata[:3, :2].copy()
    small.X = sparse.csc_matrix(np.ones((3, 2), dtype=np.float32))
    small.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        matrix: Any = file["X"]
        for name, values in parts.items():
            del matrix[name]
            matrix[name] = np.array(values)
    return H5adSource(path=path)


def test_a_csc_with_unsorted_and_repeated_indices_is_summed_and_told(adata: Any, tmp_path: Path):
    source = csc(
        adata, tmp_path / "a.h5ad", data=[200, 1, 100, 7], indices=[2, 0, 2, 1], indptr=[0, 3, 4]
    )
    spooled = spool(source, "X", tmp_path / "spool")
    assert whole(spooled, "X").tolist() == [[1, 0], [0, 7], [300, 0]]
    assert "a gene more than once: its values are summed" in source.notes[0]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"indices": [0, 3, 1, 0, 1, 2]}, "index of 3 lies outside"),
        ({"indices": [0, -1, 1, 0, 1, 2]}, "lies outside"),
        ({"indptr": [0, 3, 9]}, "indptr does not fit"),
        ({"indptr": [0, 3]}, "indptr has 2 values, expected 3"),
        ({"indptr": [0, 3, 5]}, "indptr ends at 5 of 6 stored values"),
    ],
    ids=["too far", "negative", "beyond", "short", "ends early"],
)
def test_a_csc_whose_parts_do_not_fit_is_refused(
    adata: Any, tmp_path: Path, parts: Any, message: str
):
    source = csc(adata, tmp_path / "a.h5ad", **parts)
    with pytest.raises(SourceError, match=message) as caught:
        spool(source, "X", tmp_path / "spool")
    assert "a.h5ad" in str(caught.value)


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix])
def test_attributes_that_are_bytes_are_read_as_the_words_they_are(
    adata: Any, tmp_path: Path, make: Any
):
    """As R's writers leave them: by the letter, a matrix by columns was taken for one by rows."""
    square = adata[:30].copy()
    square.X = make(square.X)
    square.obs_names = [f"{i + 1}" for i in range(30)]
    square.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        for item in (file["X"], file["obs"], file["var"], file["obs/cell_type"]):
            for name, value in list(item.attrs.items()):
                if isinstance(value, str):
                    item.attrs[name] = np.bytes_(value)
    source: Any = open_source(tmp_path / "a.h5ad", recognise=len)
    assert source.barcodes().tolist() == [f"{i + 1}" for i in range(30)]
    assert source.obs(0, 30).column("cell_type").to_pylist() == square.obs["cell_type"].tolist()
    if source.layers()[0].order == "columns":
        source = spool(source, "X", tmp_path / "spool")
    assert (whole(source, "X") == square.X.toarray()).all()


def break_link(path: Path, place: str) -> None:
    """Leave a name in a group that leads to nothing, as a damaged heap or header does."""
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = h5py.SoftLink("/nowhere")


@pytest.mark.parametrize("place", ["raw/X", "layers/counts", "obs/_index", "var/_index", "X/data"])
def test_what_a_damaged_h5ad_names_and_cannot_open_is_not_passed_over(
    adata: Any, tmp_path: Path, land: Any, place: str
):
    """Else the next layer would be taken, or cells be numbered."""
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata
    adata.write_h5ad(tmp_path / "a.h5ad")
    break_link(tmp_path / "a.h5ad", place)
    with pytest.raises(SourceError, match=r"a\.h5ad: .*damaged"):
        land(tmp_path / "a.h5ad")


@pytest.mark.parametrize("place", ["feature_type", "id", "genome"])
def test_a_damaged_column_of_a_10x_file_is_not_taken_for_a_missing_one(tmp_path: Path, place: str):
    counts, names = np.ones((2, 3), dtype=int), ["G1", "G2", "G3"]
    write_h5(tmp_path / "a.h5", counts, names, names, version=3)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        features: Any = file["matrix/features"]
        if place not in features:
            features[place] = [b"x"] * 3
    break_link(tmp_path / "a.h5", f"matrix/features/{place}")
    with pytest.raises(SourceError, match=rf"a\.h5: '{place}' in .* cannot be opened"):
        open_source(tmp_path / "a.h5", recognise=len).layers()


def test_cells_of_a_loom_whose_names_are_damaged_are_not_numbered(tmp_path: Path):
    with h5py.File(tmp_path / "a.loom", "w") as file:
        file["matrix"] = np.ones((3, 2))
        file["row_attrs/Gene"] = [b"G1", b"G2", b"G3"]
        file["col_attrs/CellID"] = [b"a", b"b"]
    break_link(tmp_path / "a.loom", "col_attrs/CellID")
    with pytest.raises(SourceError, match=r"a\.loom: 'CellID' in /col_attrs cannot be opened"):
        open_source(tmp_path / "a.loom", recognise=len).barcodes()


def test_an_index_that_is_named_and_missing_is_refused(adata: Any, tmp_path: Path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["obs"].attrs["_index"] = "Index"
    with pytest.raises(SourceError, match=r"a\.h5ad: /obs has no index 'Index'"):
        H5adSource(path=tmp_path / "a.h5ad").barcodes()


def test_a_10x_file_called_h5ad_lands_as_what_it_is(tmp_path: Path, land: Any):
    names = [f"G{i}" for i in range(1, 21)]
    counts = np.random.default_rng(0).poisson(3, size=(12, 20))
    write_h5(tmp_path / "a.h5ad", counts, names, names, version=3)
    lake = land(tmp_path / "a.h5ad")
    assert sum(sum(genes.values()) for genes in counts_in(lake, "a").values()) == counts.sum()


def test_a_link_to_itself_is_no_source_and_one_in_a_folder_does_no_harm(tmp_path: Path, land: Any):
    (tmp_path / "loop.h5ad").symlink_to(tmp_path / "loop.h5ad")
    with pytest.raises(SourceError, match=r"loop\.h5ad: no such file or folder"):
        land(tmp_path / "loop.h5ad")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "again").symlink_to(tmp_path / "m", target_is_directory=True)
    with pytest.raises(SourceError, match="the folder is empty"):
        land(tmp_path / "m")


@pytest.mark.parametrize("how", ["longer", "touched", "another", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused(adata: Any, tmp_path: Path, how: str):
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path)
    candidate = Candidate(entry=SourceEntry(path=str(path)))
    candidate.path, candidate.stamp = path, stamp_of(path)
    candidate.check_unchanged()
    match how:
        case "longer":
            path.write_bytes(path.read_bytes() + b"x")
        case "touched":
            path.touch()
        case "another":
            path.rename(tmp_path / "old")
            path.write_bytes((tmp_path / "old").read_bytes())
        case _:
            path.unlink()
    with pytest.raises(SourceError, match=r"a\.h5ad: (changed|went away) while it was read"):
        candidate.check_unchanged()


def test_a_file_whose_genes_nobody_knows_is_refused(adata: Any, tmp_path: Path, land: Any):
    adata.var_names = [f"x{i}" for i in range(30)]
    adata.var["symbol"] = [f"y{i}" for i in range(30)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(NoGenesError, match=r"a\.h5ad: no gene recognised"):
        land(tmp_path / "a.h5ad")
