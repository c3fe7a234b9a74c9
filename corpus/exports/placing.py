"""What leaves a corpus: put on record, then written aside, then there whole. Knows no format."""

import os
import secrets
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...platform.errors import CorpusError
from ...platform.refusals import storing_in
from ...platform.storage import publish, sync_file, sync_folder
from ..payload.writing import is_alive

if TYPE_CHECKING:
    from ..store import Corpus
    from ..stream import Selection


@contextmanager
def leaving(
    corpus: "Corpus", selection: "Selection", target: Path, *, overwrite: bool = False
) -> Generator[Path]:
    """A hidden sibling to write to, file or folder, that becomes `target` if all goes well.

    That the cells leave the corpus is put on record before anything is written: when some of them
    are withdrawn later, `corpus vacuum --for-consent` names the file. See `aside`.

    Args:
        corpus: where from.
        selection: the cells.
        target: an absolute path.
        overwrite: whether a file of that name is replaced.

    Raises:
        CorpusError: the name is taken, or there is no such folder.
        StorageError: the disk says no.
    """
    refuse_taken(target, overwrite=overwrite)
    corpus.record_use(
        "export", target.name, where=selection.where, part=selection.part, uri=str(target)
    )
    with aside(target) as temporary:
        yield temporary
        refuse_taken(target, overwrite=overwrite)  # another may have been quicker


@contextmanager
def aside(target: Path) -> Generator[Path]:
    """A hidden sibling to write to, file or folder, that takes the name `target` when it is whole.

    A writer that is killed leaves the sibling, and nothing under the name. The next one to the same
    place takes away what dead writers of this host left; of another host's nobody knows who lives.

    Raises:
        StorageError: the disk says no.
    """
    stem = f".{target.name}.{socket.gethostname()}."
    if target.parent.is_dir():
        for left in target.parent.iterdir():
            pid, _, rest = left.name.removeprefix(stem).partition("-")
            ours = left.name.startswith(stem) and rest.endswith(".tmp") and pid.isdigit()
            if ours and not is_alive(int(pid)):
                _remove(left)
    temporary = target.with_name(f"{stem}{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with storing_in(target.parent):
            yield temporary
            _sync(temporary)
        publish(temporary, target, "export")
    except BaseException:
        _remove(temporary)
        raise


def refuse_taken(target: Path, *, overwrite: bool = False) -> None:
    """Refuse a place where nothing can be written.

    Raises:
        CorpusError: the name is taken, or there is no such folder.
    """
    if not target.parent.is_dir():
        raise CorpusError(f"{target}: there is no folder {target.parent}; make it first")
    if os.path.lexists(target) and not (overwrite and target.is_file()):
        raise CorpusError(f"{target} is there already: remove it, or give another name")


def _sync(path: Path) -> None:
    if not path.is_dir():
        sync_file(path)
        return
    for folder, _, files in os.walk(path):
        for name in files:
            sync_file(Path(folder) / name)
        sync_folder(Path(folder))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
