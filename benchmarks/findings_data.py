"""The cells of the findings: Kang 2018 and pbmc3k as a corpus, and the parts they are cut into.

Knows these two studies; knows no model. Kang 2018 here: 12,261 control PBMC of 8 lupus patients,
raw counts of 1,287 expressed genes, one pooled run. pbmc3k: 2,700 PBMC of one healthy donor.
"""

from pathlib import Path

import anndata
import pandas as pd
from cytolake.ingest.job import ingest
from cytolake.ingest.sources_toml import SourcesFile
from cytolake.platform.configuration import parse_values
from cytolake.platform.resources import find
from cytolake.platform.settings import Settings

LEARNT_DONORS = ("1015", "1256", "1488")
HELD_OUT_DONORS = ("101", "107", "1016", "1039", "1244")

LEARNT, HELD_OUT, OTHER_STUDY = "pretraining", "evaluation", "other_study"


def _donors(names: tuple[str, ...]) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"source_id = 'kang' AND donor_id IN ({listed})"


SPLIT = {
    "kind": "query",
    "whole": "donor_id",
    "parts": {
        LEARNT: _donors(LEARNT_DONORS),
        HELD_OUT: _donors(HELD_OUT_DONORS),
        OTHER_STUDY: "source_id = 'pbmc3k'",
    },
}

BOTH_STUDIES = f"source_id = 'pbmc3k' OR ({_donors(HELD_OUT_DONORS)})"

TYPES_OF_PBMC3K = {
    "Naive CD4 T": "CD4 T cells",
    "Memory CD4 T": "CD4 T cells",
    "CD14+ Mono": "CD14+ Monocytes",
    "B": "B cells",
    "CD8 T": "CD8 T cells",
    "FCGR3A+ Mono": "FCGR3A+ Monocytes",
    "NK": "NK cells",
    "DC": "Dendritic cells",
    "Platelet": "Megakaryocytes",
    "not_annotated": "",
}
"""pbmc3k's cell types in Kang's words."""


def corpus_of_findings(folder: Path, settings: Settings) -> str:
    """Ingest both studies into a corpus in `folder`; done once, again it adds nothing.

    Raises:
        ResourceError: the files are not at hand (`CYTOLAKE_RESOURCES`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    types = folder / "pbmc3k-types.csv"
    if not types.exists():
        obs = anndata.read_h5ad(find("pbmc3k-labelled", settings), backed="r").obs
        table = pd.DataFrame({"type": obs["cell_type"].astype(str).map(TYPES_OF_PBMC3K)})
        table.to_csv(types, index_label="barcode")
    sources = {
        "unit_cells": 4096,
        "source": [
            {
                "name": "kang",
                "resource": "kang2018-control",
                "panel": "use",  # the medians are of this study alone
                "columns": {"cell_type": "cluster_id", "donor_id": "sample_id"},
                "constants": {"tissue": "blood", "disease": "systemic lupus erythematosus"},
            },
            {
                "name": "pbmc3k",
                "resource": "pbmc3k-labelled",
                "metadata": types.name,
                "columns": {"cell_type": "type"},
                "constants": {"tissue": "blood", "disease": "normal", "donor_id": "pbmc3k"},
            },
        ],
    }
    plan = parse_values(sources, SourcesFile, origin="findings").model_copy(
        update={"folder": folder}
    )
    lake = str(folder / "lake")
    ingest(lake, plan, settings)
    return lake
