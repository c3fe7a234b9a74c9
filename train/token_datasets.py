"""Cells of a corpus as a Hugging Face data set of rank value tokens, for tools that read those.

Knows encodings and the layout on disk; knows no model, and does without the library `datasets`.
What `datasets.load_from_disk` and the official Geneformer tools expect: a folder of Arrow streams,
`state.json` that names them and `dataset_info.json` that types their columns.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..corpus.exports.extract import BLOCK
from ..corpus.exports.placing import leaving, refuse_taken
from ..corpus.medians import MediansSet
from ..corpus.vocabularies import Vocabulary
from ..platform.errors import NoCellsError, RecipeError, did_you_mean
from ..platform.places import local_path
from ..platform.progress import progress
from .encodings.rank_value import RankValueEncoding
from .encodings.tokens import TokenBatch
from .vocabularies import official_set, vocabulary_and_medians

if TYPE_CHECKING:
    from ..corpus.store import Corpus
    from ..platform.settings import Settings

OFFICIAL = {"geneformer-v1": 2048, "geneformer-v2": 4096}
"""The official settings, and the most tokens of a cell, special ones included."""

COLUMNS = ("cell_id", "cell_type")
"""What is kept beside the tokens where nothing else is asked for."""

_SHARD_BYTES = 500_000_000
_ROWS_PER_BATCH = 1000
"""As `datasets` has them: what it maps and looks up at once."""

_OWN = ("input_ids", "length")
_TYPES = {
    pa.string(): "string",
    pa.bool_(): "bool",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float32(): "float32",
    pa.float64(): "float64",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTokens:
    """What was written.

    Attributes:
        n_cells: rows of the data set.
        n_empty: cells without any gene of the vocabulary, left out as the official tokenizer does.
    """

    n_cells: int
    n_empty: int


def export_tokens(
    corpus: "Corpus",
    path: str | Path,
    recipe: str,
    settings: "Settings",
    *,
    where: str | None = None,
    columns: Sequence[str] = COLUMNS,
) -> WrittenTokens:
    """Write the tokens of the cells that a condition chooses, duplicates too, as a data set.

    Rows are `input_ids` (int32), `length` (int64), then the columns asked for. Tokens are the
    official TranscriptomeTokenizer's, but for the order of equal values, which it leaves undefined.

    Args:
        corpus: where from.
        path: the folder; nothing is there yet.
        recipe: `geneformer-v1`, `geneformer-v2`, or a pretraining recipe, whose vocabulary, medians
            and length are taken; where these are of the corpus, they are written beside the tokens.
        settings: where official sets are found.
        where: a bare condition over `cells`; None for all.
        columns: of `cells`, to keep beside the tokens.

    Raises:
        CorpusError: the name is taken.
        RecipeError: no such recipe, or a column that is called like the tokens.
        QueryError: the condition is refused, or there is no such column.
        NoCellsError: no cell is chosen, or none has a gene of the vocabulary.
        ResourceError: an official set is out of reach.
    """
    target = local_path(path).absolute()
    refuse_taken(target)
    taken = [name for name in columns if name in _OWN]
    if taken:
        raise RecipeError(f"the column {taken[0]!r} is the tokens' own: annotate it by other words")
    selection = corpus.select(where, primary_only=False)
    encoding = _encoding(corpus, recipe, settings)
    kept = {name: _plain(corpus.column(selection, name)) for name in dict.fromkeys(columns)}
    schema = _schema(kept)
    with (
        leaving(corpus, selection, target) as folder,
        progress("exporting", selection.n_cells, "cells") as bar,
    ):
        folder.mkdir()
        shards = _Shards(folder, schema)
        try:
            for start in range(0, selection.n_cells, BLOCK):
                positions = np.arange(start, min(start + BLOCK, selection.n_cells))
                encoded = [encoding.encode(batch) for batch in corpus.read(selection, positions)]
                beside = {name: column.slice(start, BLOCK) for name, column in kept.items()}
                shards.write(_rows(TokenBatch.concatenate(encoded), encoding, beside, schema))
                bar.advance(len(positions))
        finally:
            shards.close()
        if not shards.n_rows:
            raise NoCellsError(
                f"none of the {selection.n_cells:,} cells has a gene of the vocabulary of {recipe}"
            )
        written = WrittenTokens(n_cells=shards.n_rows, n_empty=selection.n_cells - shards.n_rows)
        told = {
            "corpus": corpus.uri,
            "corpus_uuid": corpus.uuid,
            "snapshot": corpus.snapshot,
            "where": where,
            "recipe": recipe,
            "length": encoding.length,
            "vocabulary": encoding.vocabulary.digest,
            "medians": encoding.medians.digest,
            "n_cells": written.n_cells,
            "n_empty": written.n_empty,
        }
        _describe(folder, schema, shards.names, told)
        if recipe not in OFFICIAL:
            (folder / "vocabulary.json").write_text(encoding.vocabulary.to_json())
            (folder / "medians.json").write_text(encoding.medians.to_json())
    return written


def _encoding(corpus: "Corpus", recipe: str, settings: "Settings") -> RankValueEncoding:
    if recipe in OFFICIAL:
        vocabulary, medians = official_set(recipe, settings)
        return RankValueEncoding(vocabulary, medians, OFFICIAL[recipe])
    vocabulary, medians, length = _of_recipe(corpus, recipe, settings)
    return RankValueEncoding(vocabulary, medians, length)


def _of_recipe(
    corpus: "Corpus", name: str, settings: "Settings"
) -> tuple[Vocabulary, MediansSet, int]:
    from .recipe import load_recipe
    from .worker import selection_of

    try:
        recipe = load_recipe(name)
    except RecipeError as error:
        near = did_you_mean(name, OFFICIAL)
        raise RecipeError(f"{error}; tokens also take {' or '.join(OFFICIAL)}{near}") from error
    chosen = selection_of(recipe, corpus)
    vocabulary, medians = vocabulary_and_medians(recipe, corpus, chosen, settings)
    return vocabulary, medians, recipe.encoding.length


def _rows(
    encoded: TokenBatch,
    encoding: RankValueEncoding,
    beside: dict[str, pa.ChunkedArray],
    schema: pa.Schema,
) -> pa.Table:
    """The cells that have a gene, as rows."""
    n_around = sum(name in encoding.vocabulary.special for name in ("<cls>", "<eos>"))
    offsets = pa.array(encoded.offsets.astype(np.int32))
    tokens = pa.ListArray.from_arrays(offsets, pa.array(encoded.tokens))
    lengths = encoded.lengths
    table = pa.Table.from_arrays([tokens, pa.array(lengths), *beside.values()], schema=schema)
    full = lengths > n_around
    return table if full.all() else table.filter(pa.array(full))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in a type that `datasets` has a plain name for; others become text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return column.cast(kind if kind in _TYPES else pa.string())


def _schema(kept: dict[str, pa.ChunkedArray]) -> pa.Schema:
    types = {name: column.type for name, column in kept.items()}
    fields = {"input_ids": pa.list_(pa.int32()), "length": pa.int64(), **types}
    told = json.dumps({"info": {"features": _features(types)}})
    return pa.schema(list(fields.items()), metadata={"huggingface": told})


def _features(types: dict[str, pa.DataType]) -> dict[str, Any]:
    # `Sequence` is what releases of `datasets` before 4 call a list; later ones read both.
    tokens = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"}
    plain = {"length": "int64"} | {name: _TYPES[kind] for name, kind in types.items()}
    return {
        "input_ids": tokens,
        **{name: {"dtype": dtype, "_type": "Value"} for name, dtype in plain.items()},
    }


def _describe(folder: Path, schema: pa.Schema, names: Sequence[str], told: dict[str, Any]) -> None:
    types = {field.name: field.type for field in schema if field.name not in _OWN}
    text = json.dumps(told, indent=1)
    info = {
        "citation": "",
        "description": text,
        "features": _features(types),
        "homepage": "",
        "license": "",
    }
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    for name, values in (("dataset_info", info), ("state", state), ("cytolake", told)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


class _Shards:
    """Arrow streams of a data set, each of up to half a gigabyte."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        """Begin with none; they get their names, which tell how many there are, in the end."""
        self._folder, self._schema = folder, schema
        self._parts: list[Path] = []
        self._n_bytes = 0
        self._file: Any = None
        self._writer: Any = None
        self.n_rows = 0
        self.names: list[str] = []

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        if self._writer is None or self._n_bytes >= _SHARD_BYTES:
            self._close_part()
            self._parts.append(self._folder / f"part-{len(self._parts)}")
            self._file = pa.OSFile(str(self._parts[-1]), "wb")
            self._writer = pa.ipc.new_stream(self._file, self._schema)
            self._n_bytes = 0
        self._writer.write_table(table.combine_chunks(), max_chunksize=_ROWS_PER_BATCH)
        self._n_bytes += table.nbytes
        self.n_rows += table.num_rows

    def close(self) -> None:
        """End the last shard and name them all."""
        self._close_part()
        n_parts = len(self._parts)
        for number, part in enumerate(self._parts):
            self.names.append(f"data-{number:05d}-of-{n_parts:05d}.arrow")
            part.rename(self._folder / self.names[-1])

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None
