"""Whether a table's log says, commit by commit, what was committed. Knows no cell.

A reader believes the log where the chain of records bears it out; here every byte of it is looked
at: each commit's file, as it is and replayed without Delta, and each checkpoint.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from deltalake import Schema

from ...platform.errors import CytolakeError
from .chain import TableState, digest_of_state, state_at
from .witness import Witness, hash_of_commit, log_file, read_witness


def problems_of_log(state: TableState) -> Iterator[str]:
    """A line for each file of a table's log that is not what was written.

    Args:
        state: the newest version, whose chain of records held.
    """
    for version, expected in _hashes(state).items():
        try:
            found = hash_of_commit(state.folder, version)
        except CytolakeError as error:
            yield str(error)
            continue
        if found != expected:
            yield f"{log_file(state.folder, version)} has other bytes than were written"
    yield from _problems_of_replay(state)
    yield from _problems_of_checkpoints(state)


def _hashes(state: TableState) -> dict[int, str]:
    """Commit -> SHA-256 of its file, as later commits and the witness say."""
    hashes = {record.version - 1: record.log for record in state.records if record.log}
    witness: Witness | None = None
    try:
        witness = read_witness(state.folder)
    except CytolakeError:
        pass  # it was read when the table was loaded
    if witness is not None and witness.version < len(state.records):
        hashes[witness.version] = witness.log
    return hashes


def _problems_of_replay(state: TableState) -> Iterator[str]:
    """Add up the commits' files; after each the table must be what the record says."""
    files: dict[str, int] = {}
    properties: dict[str, str] = {}
    columns = pa.schema([])
    for record in state.records:
        path = log_file(state.folder, record.version)
        try:
            for line in path.read_text().splitlines():
                action: Mapping[str, Any] = json.loads(line)
                if (added := action.get("add")) is not None:
                    files[added["path"]] = added["size"]
                elif (removed := action.get("remove")) is not None:
                    files.pop(removed["path"], None)
                elif (metadata := action.get("metaData")) is not None:
                    given = metadata["configuration"]
                    properties = {n: v for n, v in given.items() if n.startswith("cytolake.")}
                    columns = pa.schema(Schema.from_json(metadata["schemaString"]).to_arrow())
            found = digest_of_state(properties, columns, dict(sorted(files.items())))
        except Exception as error:  # whatever a library says of a log that it cannot read
            yield f"{path} cannot be read: {error!r}"
            return
        if found != record.state:
            yield f"{path}: the files and columns are not those that were committed"
            return


def _problems_of_checkpoints(state: TableState) -> Iterator[str]:
    """The versions that checkpoints hold; and that the last one is where it is said to be."""
    log = state.folder / "_delta_log"
    for path in sorted(log.glob("*.checkpoint*.parquet")):
        try:
            version = int(path.name.split(".")[0])
            if version <= state.newest:
                state_at(state, version)
        except (CytolakeError, ValueError) as error:
            yield f"{path}: {error}"
    last = log / "_last_checkpoint"
    try:
        version = json.loads(last.read_bytes())["version"]
        if not list(log.glob(f"{version:020}.checkpoint*.parquet")):
            yield f"{last} names a checkpoint {version}, which is not there"
    except FileNotFoundError:
        pass  # a hint, no more: a reader finds the checkpoint without it
    except (OSError, ValueError, TypeError, KeyError) as error:
        yield f"{last} is not what was written ({error!r}): remove it"
