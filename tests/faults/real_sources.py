"""Small real sources of every format: files as they were published, and their cells written anew.

Knows where real files lie and how their field's libraries write them; knows no mutation.
"""

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import anndata as ad
from scipy import sparse
from scipy.io import mmread

_10X = "10x_h5_v3_small/filtered_feature_bc_matrix"
_TEXT_CELLS = 150


def gather(resources: Path, folder: Path) -> dict[str, list[Path]]:
    """Put the sources into a folder.

    Args:
        resources: the folder of real data.
        folder: where to put them; made if missing.

    Returns:
        Format -> its sources: files, or folders that are a source.

    Raises:
        FileNotFoundError: a real file is not there.
    """
    copied = {
        "h5ad": ("nsclc_dendritic_zilionis2019/nsclc_dc_913cells.h5ad",
                 "pbmc_scvi_7480/pbmc_7480cells_200genes.h5ad"),
        "h5mu": ("eccite_pbmc_mimitou2019/eccite_500cells_rna_adt_hto.h5mu",),
        "10x h5": (f"{_10X}_v3.h5", "10x_h5_v3_small/filtered_gene_bc_matrices_v2.h5"),
        "10x mtx": (_10X,),
        "loom": ("pbmc_loom_scenicprotocol/expr_mat.loom",),
        "csv.gz": ("sc_mixology_tian2019/sc_dropseq.count.csv.gz",),
        "zarr zip": ("pbmc68k_reduced_zarr/10x_pbmc68k_reduced.zarr.zip",),
    }  # fmt: skip
    found: dict[str, list[Path]] = {}
    for kind, names in copied.items():
        (folder / kind).mkdir(parents=True)
        for name in names:
            made = folder / kind / Path(name).name
            if (resources / name).is_dir():
                shutil.copytree(resources / name, made)
            else:
                shutil.copyfile(resources / name, made)
            found.setdefault(kind, []).append(made)
    _write_text(resources / _10X, folder, found)
    _write_anndata(found["h5ad"][0], folder, found)
    _pack_mtx(resources / _10X, folder, found)
    with zipfile.ZipFile(found["zarr zip"][0]) as archive:
        archive.extractall(folder / "zarr" / "unpacked.zarr")
    store = folder / "zarr" / "unpacked.zarr"
    inner = [path.parent for path in sorted(store.rglob("zarr.json")) if path.parent != store]
    found.setdefault("zarr", []).append(store if (store / "zarr.json").exists() else inner[0])
    return found


def _write_anndata(real: Path, folder: Path, found: dict[str, list[Path]]) -> None:
    """Real cells as h5ad by rows, by columns, dense and packed, and as zarr of format 2."""
    cells = ad.read_h5ad(real)[:200, :3000].copy()
    matrix: Any = cells.X
    by_gene, dense = sparse.csc_matrix(matrix), matrix.toarray()
    for name, made in (("by_cell", matrix), ("by_gene", by_gene), ("dense", dense)):
        cells.X = made
        found["h5ad"].append(folder / "h5ad" / f"{name}.h5ad")
        cells.write_h5ad(found["h5ad"][-1], compression="gzip" if name == "dense" else None)
    cells.X = matrix
    store = folder / "zarr" / "format_2.zarr"
    cells.write_zarr(store)
    found.setdefault("zarr", []).append(store)


def _write_text(real: Path, folder: Path, found: dict[str, list[Path]]) -> None:
    """Real cells as plain csv, cells down, and as tsv, genes down, the corner cell left out."""
    matrix = sparse.csr_matrix(mmread(gzip.open(real / "matrix.mtx.gz"))).toarray()
    matrix = matrix[:, :_TEXT_CELLS].astype(int)
    ids = _lines(real / "features.tsv.gz")
    names = [line.split("\t")[1] for line in ids]
    barcodes = _lines(real / "barcodes.tsv.gz")[:_TEXT_CELLS]
    for kind, delimiter, side, head, values in (
        ("csv", ",", barcodes, ["", *names], matrix.T),
        ("tsv", "\t", names, barcodes, matrix),
    ):
        rows = [delimiter.join(head)]
        rows += [delimiter.join([n, *map(str, row)]) for n, row in zip(side, values, strict=True)]
        found[kind] = [folder / kind / f"table.{kind}"]
        found[kind][0].parent.mkdir()
        found[kind][0].write_text("\n".join(rows) + "\n")


def _pack_mtx(real: Path, folder: Path, found: dict[str, list[Path]]) -> None:
    """The folder of a matrix with its files unpacked, and as a tar, packed and plain."""
    tars = folder / "10x tar"
    tars.mkdir()
    plain = folder / "10x mtx" / "plain"
    plain.mkdir()
    for path in sorted(real.iterdir()):
        (plain / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    for name, mode in (("matrix.tar.gz", "w:gz"), ("matrix.tar", "w:")):
        found.setdefault("10x tar", []).append(tars / name)
        with tarfile.open(str(tars / name), mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
            for path in sorted(plain.iterdir()):
                archive.add(path, f"filtered/{path.name}")
    found["10x mtx"].append(plain)


def _lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def sources_in(folder: Path) -> dict[str, list[Path]]:
    """Format -> its sources, as `gather` put them there."""
    return {kind.name: sorted(kind.iterdir()) for kind in sorted(folder.iterdir())}


def files_of(source: Path) -> list[Path]:
    """The files of a source, in a fixed order."""
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.is_file())
