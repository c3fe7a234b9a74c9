"""A Census in a folder, made out of an AnnData with tiledbsoma. Knows the public one's layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tiledbsoma as soma
from scipy import sparse


def write_census(
    folder: Path,
    adata: Any,
    *,
    first_id: int = 100,
    presence: dict[str, list[bool]] | None = None,
    build: str = "2025-01-30",
) -> Path:
    """Write `census_info` and `census_data/homo_sapiens` as CELLxGENE Census has them.

    Args:
        folder: the store.
        adata: cells; `X` holds raw counts, `obs` has `dataset_id` and `nnz`.
        first_id: soma_joinid of the first cell; ids go up by 3, as if others were left out.
        presence: data set -> whether it measured each gene; no matrix of presence where None.
        build: the release.
    """
    n_cells, n_genes = adata.shape
    ids = first_id + 3 * np.arange(n_cells, dtype=np.int64)
    top = int(ids[-1]) + 1
    with soma.Collection.create(str(folder)) as root:
        info = root.add_new_collection("census_info")
        labels = ("census_schema_version", "census_build_date", "dataset_schema_version")
        said = {"label": list(labels), "value": ["2.1.0", build, "5.2.0"]}
        _frame(info, "summary", {"soma_joinid": np.arange(3), **said})
        names = sorted(set(adata.obs["dataset_id"]))
        listed = {"soma_joinid": np.arange(len(names)), "dataset_id": names}
        _frame(info, "datasets", listed)
        human = root.add_new_collection("census_data").add_new_collection(
            "homo_sapiens", soma.Experiment
        )
        obs = {"soma_joinid": ids} | {name: _column(adata.obs[name]) for name in adata.obs}
        _frame(human, "obs", obs, top)
        rna = human.add_new_collection("ms").add_new_collection("RNA", soma.Measurement)
        genes = {"feature_id": list(adata.var_names), "feature_name": list(adata.var["symbol"])}
        _frame(rna, "var", {"soma_joinid": np.arange(n_genes), **genes})
        counts = sparse.coo_matrix(adata.X)
        with rna.add_new_collection("X").add_new_sparse_ndarray(
            "raw", type=pa.float32(), shape=(top, n_genes)
        ) as raw:
            raw.write(_triplets(ids[counts.row], counts.col, counts.data.astype(np.float32)))
        if presence is not None:
            given = np.array([presence[name] for name in names])
            rows, columns = np.nonzero(given)
            with rna.add_new_sparse_ndarray(
                "feature_dataset_presence_matrix", type=pa.bool_(), shape=given.shape
            ) as matrix:
                matrix.write(_triplets(rows, columns, given[rows, columns]))
    return folder


def _triplets(rows: Any, columns: Any, values: Any) -> pa.Table:
    named = {"soma_dim_0": rows, "soma_dim_1": columns, "soma_data": values}
    return pa.table({name: pa.array(given) for name, given in named.items()})


def _column(values: Any) -> pa.Array:
    if values.dtype == "category" or values.dtype == object:
        return pa.array(values.astype(str), pa.large_string()).dictionary_encode()
    return pa.array(values)


def _frame(parent: Any, name: str, columns: dict[str, Any], top: int | None = None) -> None:
    table = pa.table(columns)
    most = table.num_rows if top is None else top
    frame = parent.add_new_dataframe(
        name, schema=table.schema, index_column_names=["soma_joinid"], domain=[(0, most)]
    )
    frame.close()
    with soma.DataFrame.open(frame.uri, "w") as written:  # codes are lost in one go with creation
        written.write(table)
