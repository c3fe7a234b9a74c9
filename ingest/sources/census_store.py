"""CELLxGENE Census by query: a store opened, and the cells and genes that a filter selects.

Knows the layout of Census; reads no count (`census.py` does). Imports tiledbsoma only when a query
is run. Tested on local stores of the public one's layout (census_info, census_data/<organism>/obs
and ms/RNA/{var, X/raw, feature_dataset_presence_matrix}), not on the public one itself: the tests
reach no network.

A query is run once, when the source is found. What it selected is written into a folder, and that
folder is the source: its bytes say uri, release, filter and schema, and hold the ids of the cells
and genes. So its checksum is the identity of a source that has no file, two runs of one query on
one release agree, and a worker reads the cells that were selected, not those of a later release.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ...platform.configuration import Configuration
from ...platform.errors import CytolakeError, SourceError
from ...platform.refusals import storing_in
from ...platform.storage import write_durably
from ...platform.uris import is_uri, recorded
from .protocol import Names

JOINID = "soma_joinid"
PUBLIC = "s3://cellxgene-census-public-"
"""Buckets that are read without credentials, as CZI's own client reads them."""

_DESCRIPTION, _CELLS, _GENES = "census.json", "joinids.npy", "genes.npy"

_BUFFER_BYTES = 1 << 25
"""A column's buffer. tiledbsoma's own default is 1 GiB, for each column that is read."""


class CensusQuery(Configuration):
    """Which cells of which Census.

    Attributes:
        uri: the store: a release's `.../soma/`, or a folder.
        organism: as Census calls it.
        obs: a condition over its obs, in SOMA's language (`tissue_general == 'heart'`); all cells
            where empty.
    """

    uri: str
    organism: str = Field(default="homo_sapiens", pattern=r"^[a-z]+(_[a-z]+)+$")
    obs: str = ""

    @field_validator("uri")
    @classmethod
    def _without_secrets(cls, given: str) -> str:
        if is_uri(given) and recorded(given) != given:
            raise ValueError("give credentials by the environment, not in the uri")
        return given

    @property
    def place(self) -> str:
        """The store and the organism, for receipts: the filter may name a donor."""
        return f"{self.uri.rstrip('/')}/census_data/{self.organism}"


def is_census(path: Path) -> bool:
    """Whether a folder holds what `select_cells` wrote."""
    return all((path / name).is_file() for name in (_DESCRIPTION, _CELLS, _GENES))


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What `select_cells` wrote. Ids ascend; shapes (n_cells,) and (n_genes,)."""

    description: Mapping[str, Any]
    query: CensusQuery
    joinids: NDArray[np.int64]
    genes: NDArray[np.int64]


def load_selection(path: Path) -> Selection:
    """What `select_cells` wrote into a folder.

    Raises:
        SourceError: it is gone or damaged.
    """
    try:
        return _load(path, (path / _DESCRIPTION).stat().st_mtime_ns)
    except OSError as error:
        raise SourceError(f"{path}: is no selection of a Census: {error}") from error


@lru_cache(maxsize=4)
def _load(path: Path, modified: int) -> Selection:
    try:
        description = json.loads((path / _DESCRIPTION).read_bytes())
        joinids = np.load(path / _CELLS, allow_pickle=False)
        genes = np.load(path / _GENES, allow_pickle=False)
        query = CensusQuery.model_validate(description["query"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: is no selection of a Census: {error}") from error
    if sha256(joinids.tobytes()).hexdigest() != description["joinids_sha256"]:
        raise SourceError(f"{path}: {_CELLS} is damaged: run the query again")
    return Selection(description=description, query=query, joinids=joinids, genes=genes)


def select_cells(query: CensusQuery, folder: Path) -> Path:
    """Run a query and write what it selects.

    Args:
        query: which cells.
        folder: where to put the description and the ids; made if it is not there.

    Returns:
        The folder: the source. The same query on the same release writes the same bytes.

    Raises:
        SourceError: tiledbsoma is not installed, the store is not to be had or is no Census, the
            filter is not understood, or selects nothing.
        StorageError: the folder cannot be written.
    """
    with reading(query), _opened(query.uri) as root:
        experiment = _organism(root, query)
        picked = _selection(experiment.obs, query)
        rna = _member(experiment, ("ms", "RNA"), query)
        measured = _measured_genes(root, rna, picked.datasets)
        described = {
            "census": 1,
            "query": query.model_dump(),
            "release": _release(root),
            "n_cells": len(picked.joinids),
            "n_datasets": len(picked.datasets),
            "n_stored": picked.n_stored,
            "n_genes": len(measured.joinids),
            "n_not_by_all": measured.n_not_by_all,
            "joinids_sha256": sha256(picked.joinids.tobytes()).hexdigest(),
            "schema": {
                "obs": _fields(experiment.obs.schema),
                "var": _fields(rna["var"].schema),
                "X/raw": str(_member(rna, ("X", "raw"), query).schema.field("soma_data").type),
            },
        }
    with storing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / _CELLS, picked.joinids, allow_pickle=False)
        np.save(folder / _GENES, measured.joinids, allow_pickle=False)
    text = json.dumps(described, sort_keys=True, indent=1)
    write_durably(folder / _DESCRIPTION, text.encode(), "census")
    return folder


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picked:
    """Cells that fit a filter: ascending ids, their data sets, their stored values if told."""

    joinids: NDArray[np.int64]
    datasets: tuple[str, ...]
    n_stored: int | None


def _selection(obs: Any, query: CensusQuery) -> _Picked:
    names = [name for name in ("dataset_id", "nnz") if name in obs.schema.names]
    asked = {"value_filter": query.obs} if query.obs else {}
    pieces: list[NDArray[np.int64]] = []
    datasets: set[str] = set()
    n_stored = 0
    for table in obs.read(column_names=[JOINID, *names], **asked):
        pieces.append(table.column(JOINID).to_numpy())
        if "dataset_id" in names:
            datasets |= set(plain_column(table.column("dataset_id")).unique().to_pylist())
        if "nnz" in names:
            n_stored += int(table.column("nnz").to_numpy().sum())
    joinids = np.sort(np.concatenate([*pieces, np.zeros(0, np.int64)]))
    if not len(joinids):
        raise SourceError(f"{query.place}: no cell fits the filter {_asked(query)}")
    stored = n_stored if "nnz" in names else None
    return _Picked(joinids=joinids, datasets=tuple(sorted(datasets)), n_stored=stored)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    """Genes that any of some data sets measured: ascending ids, and how many not by all of them."""

    joinids: NDArray[np.int64]
    n_not_by_all: int


def _measured_genes(root: Any, rna: Any, datasets: tuple[str, ...]) -> _Measured:
    """What Census's own matrix of presence says; all genes where it has none."""
    every = np.sort(rna["var"].read(column_names=[JOINID]).concat().column(JOINID).to_numpy())
    known = "census_info" in root and "datasets" in root["census_info"]
    if not known or not datasets or "feature_dataset_presence_matrix" not in rna:
        return _Measured(joinids=every, n_not_by_all=0)
    listed = root["census_info"]["datasets"].read(column_names=[JOINID, "dataset_id"]).concat()
    wanted = np.isin(texts(listed.column("dataset_id")), np.array(datasets, dtype=object))
    rows = listed.column(JOINID).to_numpy()[wanted]
    if len(rows) < len(datasets):  # a store that says nothing of a data set says nothing of genes
        return _Measured(joinids=every, n_not_by_all=0)
    presence = rna["feature_dataset_presence_matrix"].read((rows, slice(None)))
    by = np.zeros(len(every), np.int64)
    for table in presence.tables():
        yes = table.column("soma_data").to_numpy().astype(bool)
        place, _ = places(table.column("soma_dim_1").to_numpy()[yes], every)
        np.add.at(by, place, 1)
    return _Measured(joinids=every[by > 0], n_not_by_all=int(((by > 0) & (by < len(rows))).sum()))


def places(wanted: NDArray[np.int64], among: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """Positions of some ids among ascending ones, and whether all are there."""
    if not len(among):
        return np.zeros(len(wanted), np.int64), not len(wanted)
    place = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return place, bool((among[place] == wanted).all())


def _release(root: Any) -> dict[str, str]:
    """What the store says of itself, in its own words."""
    if "census_info" not in root or "summary" not in root["census_info"]:
        return {}
    table = root["census_info"]["summary"].read(column_names=["label", "value"]).concat()
    labels, values = (texts(table.column(name)) for name in ("label", "value"))
    said = dict(zip(labels.tolist(), values.tolist(), strict=True))
    wanted = ("census_build_date", "census_schema_version", "dataset_schema_version")
    return {label: said[label] for label in wanted if label in said}


def _fields(schema: pa.Schema) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in schema]


def texts(column: Any) -> Names:
    """A column of text as names; an empty one where a value is missing."""
    return np.array([value or "" for value in plain_column(column).to_pylist()], dtype=object)


def plain_column(column: Any) -> pa.Array:
    """A column with its codes looked up, and text as text."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.chunks else pa.array([], values.type)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.string()) if pa.types.is_large_string(values.type) else values


def _organism(root: Any, query: CensusQuery) -> Any:
    if "census_data" not in root:
        raise SourceError(
            f"{query.uri}: is no Census: it has no census_data, but {', '.join(root)}"
        )
    data = root["census_data"]
    if query.organism not in data:
        known = ", ".join(data)
        raise SourceError(f"{query.uri}: has no organism {query.organism!r}; it has {known}")
    return data[query.organism]


def _member(item: Any, names: tuple[str, ...], query: CensusQuery) -> Any:
    for name in names:
        if name not in item:
            raise SourceError(f"{query.place}: is no Census: it lacks {name!r}")
        item = item[name]
    return item


@contextmanager
def reading(query: CensusQuery) -> Generator[None]:
    """Tell what tiledbsoma says as an error of ours, in its first line."""
    try:
        yield
    except CytolakeError:
        raise
    except ImportError as error:
        raise SourceError(
            f"{query.place}: to read a Census, tiledbsoma is needed, which is not installed: "
            f"pip install 'cytolake[census]' ({error})"
        ) from None
    except Exception as error:  # of its own types, RuntimeError, KeyError, ...
        first = (str(error).splitlines() or [""])[0][:300]
        first = first.replace(query.obs, "...") if query.obs else first
        raise SourceError(
            f"{query.place}: cannot be read with the filter {_asked(query)}: "
            f"{type(error).__name__}: {first}"
        ) from error


def _asked(query: CensusQuery) -> str:
    """A filter by its length: an error goes on record, and a filter may name a donor."""
    return f"of {len(query.obs)} letters" if query.obs else "that takes all"


def _open(uri: str) -> Any:
    import tiledbsoma

    settings: dict[str, Any] = {"soma.init_buffer_bytes": _BUFFER_BYTES}
    if uri.startswith(PUBLIC):
        settings |= {"vfs.s3.region": "us-west-2", "vfs.s3.no_sign_request": "true"}
    context = tiledbsoma.SOMATileDBContext(tiledb_config=settings)
    return tiledbsoma.open(uri, context=context)


@contextmanager
def _opened(uri: str) -> Generator[Any]:
    with _open(uri) as root:
        yield root


@lru_cache(maxsize=2)
def _kept(uri: str) -> Any:
    """The store, opened once in a process: opening it asks a bucket many times."""
    return _open(uri)


def kept_organism(query: CensusQuery) -> Any:
    """The experiment of a query's organism, kept open for its next blocks."""
    return _organism(_kept(query.uri), query)
