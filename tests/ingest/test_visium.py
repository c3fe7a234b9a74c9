from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cytolake.ingest.sources.formats import open_source, source_files
from cytolake.ingest.sources.spool import spool
from cytolake.platform.errors import SourceError

from .test_tenx import write_h5, write_mtx

COUNTS = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 0], [5, 0, 70000]])
IDS, NAMES = [f"ENSG{i:011d}" for i in range(3)], ["G0", "G1", "G2"]
SPOTS = pd.DataFrame(
    {
        "barcode": ["b3", "b9", "b0", "b1", "b2"],
        "in_tissue": [1, 0, 1, 1, 0],
        "array_row": [3, 9, 0, 1, 2],
        "array_col": [13, 19, 10, 11, 12],
        "pxl_row_in_fullres": [303, 309, 300, 301, 302],
        "pxl_col_in_fullres": [403, 409, 400, 401, 402],
    }
)
EXPECTED = {
    "array_row": [0, 1, 2, 3],
    "array_col": [10, 11, 12, 13],
    "pxl_row_in_fullres": [300, 301, 302, 303],
    "pxl_col_in_fullres": [400, 401, 402, 403],
    "in_tissue": [1, 1, 0, 1],
}


def space_ranger(folder: Path, version: int, *, text: bool = False) -> Path:
    """Versions 1 (no header), 2 (header) and 3 (Visium HD: Parquet), with what lies beside."""
    (folder / "spatial").mkdir(parents=True)
    (folder / "spatial" / "tissue_hires_image.png").write_bytes(b"an image")
    (folder / "possorted_genome_bam.bam").write_bytes(b"a BAM")
    if version == 1:
        SPOTS.to_csv(folder / "spatial/tissue_positions_list.csv", header=False, index=False)
    elif version == 2:
        SPOTS.to_csv(folder / "spatial/tissue_positions.csv", index=False)
    else:
        SPOTS.to_parquet(folder / "spatial/tissue_positions.parquet")
    for name in ("filtered", "raw"):
        place = folder / f"{name}_feature_bc_matrix"
        if text:
            write_mtx(place, COUNTS, IDS, NAMES)
        else:
            write_h5(place.with_suffix(".h5"), COUNTS, IDS, NAMES, version=3)
    return folder


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("text", [False, True], ids=["HDF5", "text"])
@pytest.mark.parametrize("lead", ["", "outs"])
def test_spots_have_their_counts_and_their_places(
    tmp_path: Path, version: int, text: bool, lead: str
):
    space_ranger(tmp_path / "heart" / lead, version, text=text)
    source: Any = open_source(tmp_path / "heart", recognise=len)
    assert source.format == "visium"
    assert source.notes == ()
    assert source.genes("matrix")["index"].tolist() == IDS
    assert source.obs(0, 4).to_pydict() == EXPECTED
    assert source.obs(1, 3).column("array_col").to_pylist() == [11, 12]
    if text:
        source = spool(source, "matrix", tmp_path / "spool")
        assert source.obs(0, 4).to_pydict() == EXPECTED
    blocks = list(source.blocks("matrix", 0, 4))
    assert (np.vstack([block.matrix.toarray() for block in blocks]) == COUNTS).all()


def test_only_what_is_read_is_of_the_source(tmp_path: Path):
    space_ranger(tmp_path, 2)
    names = [file.name for file in source_files(tmp_path)]
    assert names == ["filtered_feature_bc_matrix.h5", "tissue_positions.csv"]


def test_a_sample_may_lead_the_name_and_a_raw_matrix_alone_is_told(tmp_path: Path):
    space_ranger(tmp_path, 2)
    (tmp_path / "filtered_feature_bc_matrix.h5").unlink()
    raw = tmp_path / "raw_feature_bc_matrix.h5"
    raw.rename(tmp_path / "V1_Heart_raw_feature_bc_matrix.h5")
    source = open_source(tmp_path, recognise=len)
    assert source.notes == (
        "no filtered matrix: read from the raw one, spots without tissue included",
    )


def test_a_spot_without_a_place_is_told_and_null(tmp_path: Path):
    space_ranger(tmp_path, 2)
    path = tmp_path / "spatial/tissue_positions.csv"
    SPOTS[SPOTS["barcode"] != "b1"].to_csv(path, index=False)
    source = open_source(tmp_path, recognise=len)
    assert source.notes == ("1 spots have no place in tissue_positions.csv",)
    assert source.obs(0, 3).column("array_row").to_pylist() == [0, None, 2]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (SPOTS.drop(columns="array_row"), "it has no column array_row"),
        (pd.concat([SPOTS, SPOTS]), "b3 stands in it twice"),
        (SPOTS.assign(array_row="x"), "no table of spots"),
        (SPOTS.assign(barcode=list("vwxyz")), "places none of the 4 spots"),
        (pd.DataFrame(), "places none of the 4 spots"),
    ],
    ids=["a column missing", "twice", "no number", "of another sample", "empty"],
)
def test_a_table_of_spots_that_cannot_be_is_refused(tmp_path: Path, table: Any, message: str):
    space_ranger(tmp_path, 2)
    table.to_csv(tmp_path / "spatial/tissue_positions.csv", index=False)
    source = open_source(tmp_path, recognise=len)
    with pytest.raises(SourceError, match=message):
        source.obs(0, 4)


def test_several_matrices_in_one_folder_are_refused(tmp_path: Path):
    space_ranger(tmp_path, 2)
    for name in ("a", "b"):
        write_h5(tmp_path / f"{name}_filtered_feature_bc_matrix.h5", COUNTS, IDS, NAMES, version=3)
    with pytest.raises(SourceError, match="holds several matrices: a_filtered"):
        open_source(tmp_path, recognise=len)
