"""Cells written to files: what is read back is what `to_anndata` gives."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from cytolake.corpus import export as forms
from cytolake.corpus.exports import anndata_files, extract
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import CorpusError, NoCellsError, QueryError
from cytolake.platform.faults import watching
from hypothesis import given, settings
from hypothesis import strategies as st

from .committed import batch_of, commit, real_corpus

READERS: dict[str, Callable[[Path], Any]] = {
    "h5ad": anndata.read_h5ad,
    "zarr": anndata.read_zarr,
}


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


def assert_same(found: Any, wanted: Any) -> None:
    pd.testing.assert_frame_equal(found.obs, wanted.obs)
    pd.testing.assert_frame_equal(found.var, wanted.var)
    assert found.X.dtype == wanted.X.dtype and found.X.format == "csr"
    assert found.X.has_canonical_format
    assert found.shape == wanted.shape and (found.X != wanted.X).nnz == 0
    assert found.uns == wanted.uns


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"where": "tissue = 'lung'"},
        {"genes": ["MIR21", "CD3D"]},
        {"where": "barcode = 'GGG'", "genes": ["CD3D"]},
    ],
    ids=["all", "some", "genes", "without a count"],
)
def test_what_is_written_reads_back_as_to_anndata_gives_it(
    fake_corpus: Corpus, tmp_path: Path, form: str, chosen: Any
) -> None:
    path = tmp_path / f"cells.{form}"
    n_cells = forms.export(fake_corpus, path, **chosen)
    wanted = fake_corpus.to_anndata(**chosen)
    assert n_cells == wanted.n_obs
    assert_same(READERS[form](path), wanted)


@pytest.mark.parametrize("form", READERS)
def test_neither_blocks_nor_pieces_change_what_is_written(
    fake_corpus: Corpus, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"cells.{form}"
    wanted = fake_corpus.to_anndata()
    monkeypatch.setattr(anndata_files, "_CHUNK", 2)
    monkeypatch.setattr(anndata_files, "_SHARD", 4)
    monkeypatch.setattr(extract.Extract.blocks, "__defaults__", (1,))
    forms.export(fake_corpus, path)
    assert_same(READERS[form](path), wanted)


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=12), piece=st.integers(1, 7)
)
def test_a_growing_array_holds_what_was_appended(pieces: list[list[int]], piece: int) -> None:
    class Stored:
        def __init__(self) -> None:
            self.values, self.starts, self.shape = np.empty(0, dtype=np.int64), [0], (0,)

        def resize(self, shape: tuple[int]) -> None:
            self.values, self.shape = np.resize(self.values, shape), shape

        def __setitem__(self, place: slice, values: Any) -> None:
            self.starts.append(place.start)
            self.values[place] = values

    growing = anndata_files._Growing(Stored(), piece)  # pyright: ignore[reportPrivateUsage]
    for values in pieces:
        growing.append(np.array(values, dtype=np.int64))
    growing.close()
    assert growing.stored.values.tolist() == [value for values in pieces for value in values]
    assert all(start % piece == 0 for start in growing.stored.starts)


def test_counts_that_float32_cannot_hold_make_float64(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus")
    commit(corpus, "bulk", batch_of([[2**24 + 1, 1], [0, 3]], ["ENSG1", "ENSG2"], ["A", "B"]))
    corpus = Corpus.open(corpus.uri)
    wanted = corpus.to_anndata()
    assert wanted.X.dtype == np.float64 and wanted.X.max() == 2**24 + 1
    forms.export(corpus, tmp_path / "cells.h5ad")
    assert_same(anndata.read_h5ad(tmp_path / "cells.h5ad"), wanted)


def test_tables_hold_the_rows_of_the_views(fake_corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "lung"
    assert forms.export(fake_corpus, folder, form="parquet", where="tissue = 'lung'") == 3
    counts = pq.read_table(folder / "expression").to_pylist()
    wanted = fake_corpus.sql(
        "SELECT cell_id, gene_id, count FROM expression SEMI JOIN (SELECT cell_id FROM cells "
        "WHERE tissue = 'lung') USING (cell_id)"
    ).to_pylist()
    as_rows = [tuple(row.values()) for row in counts]
    assert sorted(as_rows) == sorted(tuple(row.values()) for row in wanted)
    adata = fake_corpus.to_anndata("tissue = 'lung'")
    cells = pd.read_parquet(folder / "cells.parquet")
    assert cells["cell"].tolist() == adata.obs_names.tolist()
    assert cells["donor_id"].tolist() == adata.obs["donor_id"].tolist()
    genes = pd.read_parquet(folder / "genes.parquet").set_index("gene_id")
    pd.testing.assert_frame_equal(genes, adata.var)


def test_tables_without_a_count_have_their_columns(fake_corpus: Corpus, tmp_path: Path) -> None:
    where = "barcode = 'GGG'"
    forms.export(fake_corpus, tmp_path / "t.parquet", where=where, genes=["CD3D"])
    counts = pq.read_table(tmp_path / "t.parquet/expression")
    assert counts.column_names == ["cell_id", "gene_id", "count"] and counts.num_rows == 0


def test_an_export_is_on_record_and_told_when_its_cells_are_withdrawn(
    corpus: Corpus, tmp_path: Path
) -> None:
    path = tmp_path / "blood.zarr"
    forms.export(corpus, path, where="tissue = 'blood'")
    [use] = corpus.uses()
    assert (use.kind, use.name, use.where) == ("export", "blood.zarr", "tissue = 'blood'")
    assert use.uri == str(path)
    corpus.withdraw("source_id = 'blood' AND barcode = 'AAC'", "consent ended")
    [holder] = Corpus.open(corpus.uri).vacuum(older_than_ms=0, for_consent=True).holders
    assert (holder.kind, holder.name, holder.n_cells) == ("export", "blood.zarr", 1)
    assert holder.uri == str(path)


def test_what_is_there_is_not_written_over(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "mine.h5ad"
    path.write_text("mine")
    with pytest.raises(CorpusError, match="is there already"):
        forms.export(corpus, path)
    assert path.read_text() == "mine" and corpus.uses() == []


def test_a_name_taken_meanwhile_is_not_written_over(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "mine.h5ad"
    seen: list[str] = []

    def look(point: str) -> None:
        seen.append(point)
        path.write_text("another's")

    with watching(look), pytest.raises(CorpusError, match="is there already"):
        forms.export(corpus, path)
    assert seen and path.read_text() == "another's"
    assert {found.name for found in tmp_path.iterdir()} == {"corpus", "mine.h5ad"}


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("cells.h5da", {}, "did you mean 'h5ad'"),
        ("cells", {}, "its ending names no format"),
        ("cells", {"form": "loom"}, "expected one of h5ad, zarr, parquet"),
        ("not/there.h5ad", {}, "there is no folder"),
        ("cells.h5ad", {"genes": ["CD3E"]}, "did you mean 'CD3D'"),
        ("cells.h5ad", {"where": "tissue = 'brain'"}, "no cell"),
        ("cells.h5ad", {"where": "tisue = 'blood'"}, "did you mean 'tissue'"),
    ],
)
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    corpus: Corpus, tmp_path: Path, path: str, asked: Any, message: str
) -> None:
    with pytest.raises((CorpusError, QueryError, NoCellsError), match=message):
        forms.export(corpus, tmp_path / path, **asked)
    assert {found.name for found in tmp_path.iterdir()} == {"corpus"}
    assert corpus.uses() == []


@pytest.mark.parametrize("form", forms.FORMS)
def test_an_export_that_is_stopped_leaves_nothing(
    corpus: Corpus, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cytolake.platform.progress.Bar.advance", stop)
    with pytest.raises(KeyboardInterrupt):
        forms.export(corpus, tmp_path / f"cells.{form}")
    assert {found.name for found in tmp_path.iterdir()} == {"corpus"}


@pytest.mark.parametrize("form", forms.FORMS)
def test_an_export_that_is_killed_leaves_nothing_under_the_name(
    corpus: Corpus, tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"cells.{form}"
    code = (
        "import os, signal, sys\n"
        "from cytolake.corpus.export import export\n"
        "from cytolake.corpus.store import Corpus\n"
        "from cytolake.platform.progress import Bar\n"
        "Bar.advance = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export(Corpus.open(sys.argv[1]), sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, corpus.uri, str(path)], env=os.environ)
    assert done.returncode == -9 and not path.exists()
    left = {found.name for found in tmp_path.iterdir()}
    assert len(left) == 2, "what a kill leaves beside the place"
    elsewhere = tmp_path / f".{path.name}.another-host.{2**22 + 1}-00.tmp"
    alive = tmp_path / f".{path.name}.{socket.gethostname()}.{os.getpid()}-00.tmp"
    elsewhere.touch()
    alive.touch()
    assert forms.export(corpus, path) == 6 and path.exists()
    left = {found.name for found in tmp_path.iterdir()}
    assert left == {"corpus", path.name, elsewhere.name, alive.name}
    if form in READERS:
        assert_same(READERS[form](path), corpus.to_anndata())


def test_real_cells_of_two_sources_read_back_from_every_form(tmp_path: Path) -> None:
    corpus = real_corpus(tmp_path / "corpus", "pbmc3k", "kang")
    for chosen in (
        {},
        {"where": "n_counts > 2000", "genes": ["ENSG00000105374", "ENSG00000090382"]},
    ):
        wanted = corpus.to_anndata(**chosen)
        for form, read in READERS.items():
            path = tmp_path / f"{len(chosen)}.{form}"
            assert forms.export(corpus, path, **chosen) == wanted.n_obs
            assert_same(read(path), wanted)
    forms.export(corpus, tmp_path / "all.parquet")
    counts = pq.read_table(tmp_path / "all.parquet/expression", columns=["count"])
    assert counts.num_rows == corpus.to_anndata().X.nnz
