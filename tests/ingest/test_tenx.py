import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cytolake.ingest.sources.companions import companions_of
from cytolake.ingest.sources.formats import open_source
from cytolake.ingest.sources.spool import spool
from cytolake.ingest.sources.tenx_h5 import TenxH5Source
from cytolake.ingest.sources.tenx_mtx import TenxMtxSource
from cytolake.platform.errors import SourceError
from scipy import sparse

from .test_h5ad import whole


def write_h5(path: Any, counts: Any, ids: Any, names: Any, *, version: int, types: Any = None):
    by_cell = sparse.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "hg19")
        group["barcodes"] = [f"b{i}" for i in range(len(counts))]
        group["data"], group["indices"] = by_cell.data, by_cell.indices
        group["indptr"], group["shape"] = by_cell.indptr, counts.shape[::-1]
        if version == 3:
            features = group.create_group("features")
            features["id"], features["name"] = ids, names
            features["feature_type"] = types or ["Gene Expression"] * len(ids)
        else:
            group["genes"], group["gene_names"] = ids, names


def write_mtx(
    folder: Any,
    counts: Any,
    ids: Any,
    names: Any,
    *,
    types: Any = None,
    zipped: bool = True,
    features: Any = "features.tsv",
):
    folder.mkdir(parents=True)
    entries = sparse.coo_matrix(counts.T)
    lines = [f"{r + 1} {c + 1} {v}" for r, c, v in
             zip(entries.row, entries.col, entries.data, strict=True)]  # fmt: skip
    head = "%%MatrixMarket matrix coordinate integer general\n%made by a test\n"
    rows = [list(row) for row in zip(ids, names, strict=True)]
    if types:
        rows = [[*row, kind] for row, kind in zip(rows, types, strict=True)]
    texts = {
        "matrix.mtx": head + f"{len(ids)} {len(counts)} {len(lines)}\n" + "\n".join(lines) + "\n",
        features: "".join("\t".join(row) + "\n" for row in rows),
        "barcodes.tsv": "".join(f"b{i}\n" for i in range(len(counts))),
    }
    for name, text in texts.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)


COUNTS = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 0], [5, 0, 70000]])
IDS, NAMES = ["ENSG00000000001", "ENSG00000000002", "CD3"], ["G1", "G2", "CD3"]
TYPES = ["Gene Expression", "Gene Expression", "Antibody Capture"]


@pytest.mark.parametrize("version", [2, 3])
def test_both_layouts_of_hdf5_are_read(tmp_path: Path, version: int):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=version)
    source = TenxH5Source(path=tmp_path / "a.h5")
    blocks = list(source.blocks("matrix", 0, 4))
    assert (np.vstack([b.matrix.toarray() for b in blocks]) == COUNTS).all()
    assert source.genes("matrix")["index"].tolist() == IDS
    assert source.genes("matrix")["name"].tolist() == NAMES
    assert source.barcodes().tolist() == ["b0", "b1", "b2", "b3"]
    assert source.notes == ()


def test_proteins_are_no_genes_but_a_modality_of_their_own(tmp_path: Path):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=3, types=TYPES)
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES, types=TYPES)
    for source in (TenxH5Source(path=tmp_path / "a.h5"), TenxMtxSource(path=tmp_path / "m")):
        assert source.notes == ()
        [(modality, proteins)] = companions_of(source).items()
        assert modality == "protein"
        assert proteins.genes("matrix")["index"].tolist() == IDS[2:]
        assert source.genes("matrix")["index"].tolist() == IDS[:2]
        assert source.layers()[0].n_genes == 2
    spooled = spool(TenxMtxSource(path=tmp_path / "m"), "matrix", tmp_path / "spool")
    blocks = list(spooled.blocks("matrix", 0, 4))
    assert (np.vstack([b.matrix.toarray() for b in blocks]) == COUNTS[:, :2]).all()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("tarred", [True, False])
def test_a_folder_and_its_tar_are_read_alike(tmp_path: Path, zipped: bool, tarred: bool):
    folder = tmp_path / "out" / "hg19"
    write_mtx(folder, COUNTS, IDS, NAMES, zipped=zipped, features="genes.tsv")
    path = tmp_path / "out"
    if tarred:
        path = tmp_path / "out.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / "out", arcname="out")
    source = TenxMtxSource(path=path)
    assert source.barcodes().tolist() == ["b0", "b1", "b2", "b3"]
    spooled = spool(source, "matrix", tmp_path / "spool")
    blocks = list(spooled.blocks("matrix", 0, 4))
    assert (np.vstack([b.matrix.toarray() for b in blocks]) == COUNTS).all()


def test_a_matrix_that_ends_early_is_refused(tmp_path: Path):
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES, zipped=False)
    path = tmp_path / "m" / "matrix.mtx"
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(SourceError, match=r"announces 5 values and ends after 3: .*cut short"):
        list(TenxMtxSource(path=tmp_path / "m").triplets("matrix"))


def test_an_entry_outside_the_matrix_is_refused(tmp_path: Path):
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES, zipped=False)
    path = tmp_path / "m" / "matrix.mtx"
    path.write_text(path.read_text().replace("2 1 3", "9 1 3"))
    with pytest.raises(SourceError, match="names row 9 of 3"):
        list(TenxMtxSource(path=tmp_path / "m").triplets("matrix"))


def test_missing_barcodes_are_refused_by_name(tmp_path: Path):
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES)
    (tmp_path / "m" / "barcodes.tsv.gz").unlink()
    with pytest.raises(SourceError, match=r"expected one barcodes\.tsv\(\.gz\), found none"):
        TenxMtxSource(path=tmp_path / "m").layers()


def test_a_cut_tar_is_refused(tmp_path: Path):
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(tmp_path / "m", arcname="m")
    (tmp_path / "a.tar.gz").write_bytes(data.getvalue()[:300])
    with pytest.raises(SourceError, match=r"a\.tar\.gz"):
        TenxMtxSource(path=tmp_path / "a.tar.gz").layers()


def several_genomes(path: Path, version: int) -> Path:
    """Human (2 genes) and mouse (1 gene): a group each, with cells of their own, or a column."""
    write_h5(path, COUNTS, IDS, NAMES, version=version, types=["Gene Expression"] * 3)
    with h5py.File(path, "r+") as file:
        if version == 3:
            features: Any = file["matrix/features"]
            features["genome"] = ["hg19", "hg19", "mm10"]
            return path
    write_h5(path, COUNTS[:, :2], IDS[:2], NAMES[:2], version=2)
    mouse = path.with_name("mouse.h5")
    write_h5(mouse, COUNTS[1:, 2:], IDS[2:], NAMES[2:], version=2)
    with h5py.File(path, "r+") as file, h5py.File(mouse, "r") as other:
        other.copy("hg19", file, name="mm10")
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_several_genomes_are_refused_until_one_is_chosen(tmp_path: Path, version: int):
    path = several_genomes(tmp_path / "a.h5", version)
    with pytest.raises(SourceError, match='hg19, mm10; choose one of them: layer = "hg19"'):
        TenxH5Source(path=path).layers()
    with pytest.raises(SourceError, match="has no genome 'hg91'; did you mean 'hg19'"):
        open_source(path, recognise=len, layer="hg91").layers()
    human, mouse = (open_source(path, recognise=len, layer=name) for name in ("hg19", "mm10"))
    assert human.layers()[0].name == "hg19"
    assert (whole(human, "hg19") == COUNTS[:, :2]).all()
    assert (whole(mouse, "mm10") == COUNTS[4 - len(mouse.barcodes()) :, 2:]).all()
    assert mouse.genes("mm10")["index"].tolist() == ["CD3"]
    assert mouse.notes[-1] == "genomes that were left out: hg19"


@pytest.mark.parametrize("layer", [None, "matrix", "hg19"])
def test_one_genome_needs_no_choice_but_may_be_named(tmp_path: Path, layer: str | None):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=2)
    source = open_source(tmp_path / "a.h5", recognise=len, layer=layer)
    assert (whole(source, layer or "matrix") == COUNTS).all()


@pytest.mark.parametrize(
    ("missing", "index", "note"),
    [
        ("id", NAMES, ()),
        ("name", IDS, ()),
        ("feature_type", IDS, ("no feature types: all features are taken for genes",)),
    ],
)
def test_features_without_a_column_are_read_by_the_others(
    tmp_path: Path, missing: str, index: Any, note: Any
):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=3)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file[f"matrix/features/{missing}"]
    source = TenxH5Source(path=tmp_path / "a.h5")
    assert source.genes("matrix")["index"].tolist() == index
    assert source.notes == note
    assert (whole(source, "matrix") == COUNTS).all()


def test_features_without_ids_and_names_are_refused(tmp_path: Path):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=2)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["hg19/genes"], file["hg19/gene_names"]
    with pytest.raises(SourceError, match="neither ids nor names of its genes"):
        TenxH5Source(path=tmp_path / "a.h5").genes("matrix")


def test_a_folder_whose_features_are_ids_only_is_read(tmp_path: Path):
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES, zipped=False)
    (tmp_path / "m/features.tsv").write_text("\n".join(IDS) + "\n")
    source = TenxMtxSource(path=tmp_path / "m")
    assert {name: list(names) for name, names in source.genes("matrix").items()} == {"index": IDS}


def test_peaks_alone_are_refused_with_what_there_is(tmp_path: Path):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=3, types=["Peaks"] * 3)
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES, types=["Peaks"] * 3)
    for source in (TenxH5Source(path=tmp_path / "a.h5"), TenxMtxSource(path=tmp_path / "m")):
        with pytest.raises(SourceError, match=r"of type Gene Expression: it has 3 Peaks"):
            source.layers()


@pytest.mark.parametrize("column", ["barcodes", "features/id", "features/feature_type", "shape"])
def test_columns_that_do_not_fit_each_other_are_refused(tmp_path: Path, column: str):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=3)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        matrix: Any = file["matrix"]
        short = matrix[column][:-1]
        del matrix[column]
        matrix[column] = short
    with pytest.raises(SourceError, match="the file is damaged"):
        TenxH5Source(path=tmp_path / "a.h5").layers()


def test_names_that_are_no_utf_8_stay_apart(tmp_path: Path):
    write_h5(tmp_path / "a.h5", COUNTS, IDS, NAMES, version=3)
    write_mtx(tmp_path / "m", COUNTS, IDS, NAMES, zipped=False)
    odd = [b"\xe9", b"\xe8", b"ok", "é".encode()]
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array(odd, dtype="S2")
    (tmp_path / "m/barcodes.tsv").write_bytes(b"\n".join(odd) + b"\n")
    for source in (TenxH5Source(path=tmp_path / "a.h5"), TenxMtxSource(path=tmp_path / "m")):
        assert source.barcodes().tolist() == ["\\xe9", "\\xe8", "ok", "é"]


def test_real_files_of_both_kinds_agree(resources: Path):
    folder = resources / "10x_h5_v3_small"
    by_h5 = TenxH5Source(path=folder / "filtered_feature_bc_matrix_v3.h5")
    by_text = TenxMtxSource(path=folder / "filtered_feature_bc_matrix")
    assert by_h5.barcodes().tolist() == by_text.barcodes().tolist()
    assert by_h5.genes("matrix")["index"].tolist() == by_text.genes("matrix")["index"].tolist()
    pieces = next(by_text.triplets("matrix"))
    shape = (1107, 507)
    text = sparse.coo_matrix((pieces.values, (pieces.cells, pieces.genes)), shape=shape)
    h5 = sparse.vstack([block.matrix for block in by_h5.blocks("matrix", 0, 1107)])
    assert (text.toarray() == h5.toarray()).all()
