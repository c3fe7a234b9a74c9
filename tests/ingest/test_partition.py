from importlib.resources import files
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.partition import deal, load_partition, partition
from cytolake.ingest.reading import read_cells
from cytolake.platform.errors import RecipeError, ResourceError, SourceError
from cytolake.platform.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

DEMO = Path(str(files("cytolake") / "ingest" / "demo"))


@given(
    labels=st.lists(st.sampled_from("abc"), max_size=40),
    n_parts=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_parts_are_disjoint_whole_and_even(labels: Any, n_parts: int, seed: int):
    words = np.array(labels, dtype=str)
    parts = deal(words, n_parts, seed)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(labels)))
    for label in set(labels):
        shares = [int((words[part] == label).sum()) for part in parts]
        assert max(shares) - min(shares) <= 1
    assert [p.tolist() for p in deal(words, n_parts, seed)] == [p.tolist() for p in parts]


@pytest.fixture
def parts(reference: GeneReference, tmp_path: Path):
    """The shipped description, cut with the small gene table: it only names the genes."""
    try:
        plan = load_partition(DEMO / "partition.toml")
        return partition(plan, tmp_path / "x", reference, Settings(home=tmp_path)), plan
    except ResourceError as error:
        pytest.skip(str(error))


def test_the_parts_hold_the_cells_of_the_file_once(
    parts: Any, tmp_path: Path, reference: GeneReference
):
    (h5ad, _, _), _ = parts
    import scanpy

    place = Path(scanpy.__file__).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
    from cytolake.ingest.sources.h5ad import H5adSource

    barcodes = H5adSource(path=place).barcodes().tolist()
    named = [ad.read_h5ad(h5ad).obs_names.tolist()]
    for beside in ("cellranger.cells.csv", "table.cells.csv"):
        lines = (tmp_path / "x" / beside).read_text().splitlines()
        assert lines[0].startswith("barcode,bulk_labels,")
        named.append([line.split(",")[0] for line in lines[1:]])
    assert sorted(name for part in named for name in part) == sorted(barcodes)
    assert [len(part) for part in named] == [234, 233, 233]


def test_a_second_call_leaves_the_files_as_they_are(
    parts: Any, tmp_path: Path, reference: GeneReference
):
    paths, plan = parts
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")}
    assert partition(plan, tmp_path / "x", reference, Settings(home=tmp_path)) == paths
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")} == before


def test_the_counts_of_all_forms_agree_with_the_recovery(
    resources: Path, human: GeneReference, tmp_path: Path
):
    plan = load_partition(DEMO / "partition.toml")
    settings = Settings(home=tmp_path, resources=(resources,))
    h5ad, folder, table = partition(plan, tmp_path / "x", human, settings)
    whole = resources / "pbmc68k_reduced_zarr/10x_pbmc68k_reduced.h5ad"

    def by_barcode(path: Any, **options: Any):
        spool = tmp_path / f"spool-{path.name}"
        return {
            barcode: key
            for batch in read_cells(path, human, spool_folder=spool, **options)
            for barcode, key in zip(
                batch.obs.column("barcode").to_pylist(), batch.content_keys.tolist(), strict=True
            )
        }

    expected = by_barcode(whole, recover="log1p_cp10k")
    found = by_barcode(h5ad, recover="log1p_cp10k") | by_barcode(folder) | by_barcode(table)
    assert found == expected
    assert len(found) == 700


def test_a_missing_column_to_stratify_by_is_refused(
    adata: Any, reference: GeneReference, tmp_path: Path
):
    adata.write_h5ad(tmp_path / "a.h5ad")
    plan = load_partition_text(tmp_path, 'stratify = "kind"')
    with pytest.raises(SourceError, match="no column 'kind' of cells"):
        partition(plan, tmp_path / "x", reference, Settings())


def test_a_misspelt_key_is_refused_with_the_nearest(tmp_path: Path):
    with pytest.raises(RecipeError, match="did you mean 'stratify'"):
        load_partition_text(tmp_path, 'stratifi = "kind"')


def load_partition_text(tmp_path: Path, line: str):
    path = tmp_path / "partition.toml"
    place = tmp_path / "a.h5ad"
    path.write_text(f'path = "{place}"\n{line}\n[[part]]\nname = "p.h5ad"\nformat = "h5ad"\n')
    return load_partition(path)
