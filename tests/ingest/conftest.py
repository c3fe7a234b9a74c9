"""30 genes, 40 cells, and real data where there is."""

import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest import job
from cytolake.ingest.sources_toml import SourcesFile
from cytolake.platform.settings import Settings
from scipy import sparse

N_CODING, N_MITOCHONDRIAL = 20, 6


@pytest.fixture(scope="session")
def reference() -> GeneReference:
    """20 coding genes G1..G20, 6 MT- genes (coding), 2 miRNAs, 2 lncRNAs that share an alias."""
    rows = [(f"ENSG{i:011d}", f"G{i}", "protein_coding", (f"OLD{i}",)) for i in range(1, 21)]
    rows += [(f"ENSG{i:011d}", f"MT-{i}", "protein_coding", ()) for i in range(21, 27)]
    rows += [(f"ENSG{i:011d}", f"MIR{i}", "miRNA", ()) for i in range(27, 29)]
    rows += [(f"ENSG{i:011d}", f"LNC{i}", "lncRNA", ("TWICE",)) for i in range(29, 31)]
    ids, symbols, biotypes, aliases = zip(*rows, strict=True)
    return GeneReference(gene_ids=ids, symbols=symbols, biotypes=biotypes, aliases=aliases)


@pytest.fixture(scope="session")
def reference_table(reference: GeneReference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same genes as a table in a file, for what runs in other processes."""
    path = tmp_path_factory.mktemp("reference") / "genes.tsv"
    rows = zip(
        reference.gene_ids, reference.symbols, reference.biotypes, reference.aliases, strict=True
    )
    lines = [f"{a}\t{b}\t{c}\t{'|'.join(d)}" for a, b, c, d in rows]
    path.write_text("ensembl_id\tsymbol\tbiotype\taliases\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def adata(reference: GeneReference) -> Any:
    """40 cells x 30 genes of integer counts, named by Ensembl ids; cell 7 is huge, cell 8 empty."""
    random = np.random.default_rng(3)
    counts = random.poisson(2.0, size=(40, 30)) * (random.random((40, 30)) < 0.6)
    counts[:, 20:26] = random.poisson(0.5, size=(40, 6))
    counts[7] = 500
    counts[8] = 0
    counts[9, 20:26] = 60
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["T", "B"] * 20),
            "donor": np.repeat([1015, 1016], 20),
            "score": random.random(40),
        },
        index=pd.Index([f"cell{i}" for i in range(40)]),
    )
    var = pd.DataFrame(
        {"symbol": list(reference.symbols)}, index=pd.Index(list(reference.gene_ids))
    )
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture(scope="session")
def resources() -> Path:
    """The folder of real data; without it the test is left out."""
    folder = os.environ.get("CYTOLAKE_RESOURCES")
    if not folder:
        pytest.skip("CYTOLAKE_RESOURCES is not set: no real data at hand")
    return Path(folder.split(os.pathsep)[0])


@pytest.fixture(scope="session")
def human(resources: Path) -> GeneReference:
    """The real table of human genes."""
    return GeneReference.load(resources / "reference/gene_table_human_gencode.tsv.gz")


@pytest.fixture
def run(reference_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Ingest files of a folder into one corpus with the small gene table."""
    monkeypatch.setattr(job, "gene_table", lambda settings: reference_table)

    def call(*entries: Any, unit_cells: int = 16, name: str = "lake", uri: str = "", **others: Any):
        plan = SourcesFile(source=entries, unit_cells=unit_cells, folder=tmp_path)
        where = uri or str(tmp_path / name)
        return job.ingest(where, plan, Settings(home=tmp_path), **others)

    return call
