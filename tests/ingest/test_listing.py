from pathlib import Path
from typing import Any

import pytest
import zarr
from cytolake.ingest.sources.formats import open_source, source_files
from cytolake.ingest.sources.listing import source_paths
from cytolake.ingest.sources.spool import spool
from cytolake.platform.errors import SourceError

from .test_tenx import COUNTS, IDS, NAMES, write_h5, write_mtx
from .test_visium import space_ranger


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def listed(folder: Path, argument: Any = None) -> list[str]:
    found = source_paths(folder if argument is None else argument)
    return [path.relative_to(folder).as_posix() for path in found]


def test_a_file_is_itself_whatever_its_name(tmp_path: Path):
    touch(tmp_path, "odd[1].dat")
    assert source_paths(str(tmp_path / "odd[1].dat")) == [tmp_path / "odd[1].dat"]


def test_a_folder_is_its_data_files_in_order_without_the_hidden_and_the_others(tmp_path: Path):
    touch(tmp_path, "b.h5ad", "a/z.csv.gz", "a/B.loom", "c.tar.gz", ".d.h5ad", ".git/e.h5ad",
          "README.txt", "plot.png", "__MACOSX/f.h5ad", "molecule_info.h5", "g.h5")  # fmt: skip
    assert listed(tmp_path) == ["a/B.loom", "a/z.csv.gz", "b.h5ad", "c.tar.gz", "g.h5"]


def test_folders_of_10x_of_space_ranger_and_of_zarr_are_one_source_each(tmp_path: Path):
    write_mtx(tmp_path / "1" / "hg19", COUNTS, IDS, NAMES)
    space_ranger(tmp_path / "2", 2)
    space_ranger(tmp_path / "3" / "outs", 1, text=True)
    zarr.open_group(tmp_path / "4.zarr", mode="w").create_group("obs")
    touch(tmp_path, "4.zarr/inside.csv")
    assert listed(tmp_path) == ["1/hg19", "2", "3", "4.zarr"]


@pytest.mark.parametrize("text_too", [False, True])
def test_of_cell_rangers_matrices_the_filtered_one_is_taken_once(tmp_path: Path, text_too: bool):
    for kind in ("filtered", "raw"):
        write_h5(tmp_path / f"{kind}_feature_bc_matrix.h5", COUNTS, IDS, NAMES, version=3)
        if text_too:
            write_mtx(tmp_path / f"{kind}_feature_bc_matrix", COUNTS, IDS, NAMES)
    touch(tmp_path, "metrics_summary.csv", "s1_raw_feature_bc_matrix.h5", "web_summary.html")
    assert listed(tmp_path) == ["filtered_feature_bc_matrix.h5", "s1_raw_feature_bc_matrix.h5"]


def test_a_folder_around_one_matrix_keeps_its_own_name(tmp_path: Path):
    write_mtx(tmp_path / "pbmc" / "filtered_gene_bc_matrices" / "hg19", COUNTS, IDS, NAMES)
    assert listed(tmp_path, tmp_path / "pbmc") == ["pbmc"]


def test_matrices_that_samples_lead_are_a_source_each(tmp_path: Path):
    for number, lead in enumerate(("GSM1_", "GSM2_")):
        write_mtx(tmp_path / lead, COUNTS + number, IDS, NAMES)
        for part in (tmp_path / lead).iterdir():
            part.rename(tmp_path / (lead + part.name))
        (tmp_path / lead).rmdir()
    touch(tmp_path, "alone_matrix.mtx.gz")
    assert listed(tmp_path) == ["GSM1_matrix.mtx.gz", "GSM2_matrix.mtx.gz"]
    second = open_source(tmp_path / "GSM2_matrix.mtx.gz", recognise=len)
    assert [file.name for file in source_files(second.path)] == [
        "GSM2_matrix.mtx.gz", "GSM2_features.tsv.gz", "GSM2_barcodes.tsv.gz",
    ]  # fmt: skip
    spooled = spool(second, "matrix", tmp_path / "spool")
    blocks = list(spooled.blocks("matrix", 0, 4))
    assert (blocks[0].matrix.toarray() == COUNTS + 1).all()
    with pytest.raises(SourceError, match="a matrix alone names no genes"):
        open_source(tmp_path / "alone_matrix.mtx.gz", recognise=len)


def test_loops_of_links_do_no_harm_and_nothing_comes_twice(tmp_path: Path):
    touch(tmp_path, "data/a.h5ad", "elsewhere/b.h5ad")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "twin.h5ad").symlink_to(tmp_path / "data" / "a.h5ad")
    (tmp_path / "data" / "self.h5ad").symlink_to(tmp_path / "data" / "self.h5ad")
    (tmp_path / "data" / "gone.h5ad").symlink_to(tmp_path / "nowhere")
    found = listed(tmp_path, tmp_path / "data")
    assert found == ["data/a.h5ad", "data/up/elsewhere/b.h5ad"]


def test_a_pattern_takes_what_fits_in_a_fixed_order(tmp_path: Path):
    touch(tmp_path, "b/2.h5ad", "a/1.h5ad", "a/x.odd", "a/.h.odd")
    write_mtx(tmp_path / "c", COUNTS, IDS, NAMES)
    assert listed(tmp_path, tmp_path / "*" / "*.h5ad") == ["a/1.h5ad", "b/2.h5ad"]
    assert listed(tmp_path, tmp_path / "**" / "*.odd") == ["a/x.odd"]
    assert listed(tmp_path, tmp_path / "*") == ["a/1.h5ad", "b/2.h5ad", "c"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing", "no such file or folder"),
        ("*.h5ad", "no file or folder fits this pattern"),
        ("images", "holds no source; looked for .h5ad"),
    ],
)
def test_nothing_is_refused_by_name(tmp_path: Path, argument: str, message: str):
    touch(tmp_path, "images/a.png")
    with pytest.raises(SourceError, match=message) as caught:
        source_paths(tmp_path / argument)
    assert argument in str(caught.value)
