"""Two real sources in a corpus, and the same cells in pandas, read from the files without it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
from cytolake.corpus.store import Corpus
from cytolake.ingest import job
from cytolake.ingest.sources_toml import SourceEntry, SourcesFile
from cytolake.platform.settings import load_settings
from scipy import sparse

FILES = {
    "pbmc3k": "pbmc3k_10x/pbmc3k_raw_labelled.h5ad",
    "kang": "kang2018_ifnb_pbmc/kang_8684cells_2511genes.h5ad",
}
_COLUMNS = {
    "pbmc3k": {"cell_type": "cell_type"},
    "kang": {"cell_type": "cluster_id", "donor_id": "sample_id"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RealLake:
    """A corpus and its truth.

    Attributes:
        corpus: of both sources.
        cells: one row a kept cell: `source_id, barcode, cell_type, donor_id, n_counts, cell_id`.
        counts: source -> its kept cells x its genes, raw; index as in `cells`, columns gene ids.
        symbols: gene id -> symbol.
    """

    corpus: Corpus
    cells: Any
    counts: dict[str, Any]
    symbols: dict[str, str]

    def id_of(self, symbol: str) -> str:
        """The gene that bears a symbol; the test is of no use where several do."""
        (found,) = [gene_id for gene_id, name in self.symbols.items() if name == symbol]
        return found

    def gene(self, symbol: str) -> Any:
        """A gene's raw counts over all cells; NaN where it was not measured."""
        gene_id = self.id_of(symbol)
        columns = [m[gene_id] for m in self.counts.values() if gene_id in m]
        return pd.concat(columns).astype(float).reindex(self.cells.index)

    def per_10k(self, symbol: str) -> Any:
        """The same, divided by the cell's total, times 10,000."""
        return self.gene(symbol) / self.cells["n_counts"] * 1e4


def build(folder: Path) -> RealLake:
    """Ingest both files, and read them apart."""
    resources = Path(os.environ["CYTOLAKE_RESOURCES"].split(os.pathsep)[0])
    entries = tuple(
        SourceEntry(name=name, path=str(resources / file), columns=_COLUMNS[name])
        for name, file in FILES.items()
    )
    settings = load_settings(folder, {**os.environ, "CYTOLAKE_HOME": str(folder / "home")})
    plan = SourcesFile(source=entries, unit_cells=2048, folder=folder)
    job.ingest(str(folder / "lake"), plan, settings)
    corpus = Corpus.open(folder / "lake")
    genes = corpus.sql("SELECT gene_id, symbol FROM genes").to_pylist()
    kept = corpus.sql("SELECT source_id, barcode, cell_id FROM cells").to_pandas()
    frames: list[Any] = []
    counts: dict[str, Any] = {}
    for name, file in FILES.items():
        adata: Any = ad.read_h5ad(resources / file)
        matrix: Any = sparse.csr_matrix(adata.X)
        obs: Any = pd.DataFrame({"barcode": adata.obs_names.astype(str), "source_id": name})
        for ours, theirs in {"donor_id": "", "cell_type": "", **_COLUMNS[name]}.items():
            values = adata.obs[theirs].astype(object).to_numpy() if theirs else None
            obs[ours] = pd.Series(values, dtype=object).map(
                lambda value: str(value) if pd.notna(value) else None
            )
        obs["n_counts"] = matrix.astype("float64").sum(axis=1).A1
        ids = kept[kept["source_id"] == name].set_index("barcode")["cell_id"]
        places = obs.index[obs["barcode"].isin(ids.index)]
        obs = obs.loc[places]
        obs["cell_id"] = ids.loc[obs["barcode"]].to_numpy()
        obs.index = pd.Index(f"{name}:{barcode}" for barcode in obs["barcode"])
        frames.append(obs)
        dense = matrix[places.to_numpy()].toarray().astype("float64")
        counts[name] = pd.DataFrame(dense, index=obs.index, columns=adata.var_names.astype(str))
    symbols = {row["gene_id"]: row["symbol"] for row in genes}
    return RealLake(corpus=corpus, cells=pd.concat(frames), counts=counts, symbols=symbols)
