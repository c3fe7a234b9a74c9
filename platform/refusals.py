"""A disk that says no, told as an error of ours. Knows no file by its name."""

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .errors import CytolakeError, StorageError

_ERRNO = re.compile(r"(?:os error |errno )(\d+)", re.IGNORECASE)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_TROUBLES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the quota is used up; free some space and run the same command again",
    errno.EROFS: "the disk is read-only; it can be read from, not written to",
    errno.EACCES: "permission is denied; let its owner do it, or ask for the right to write",
    errno.EPERM: "the system forbids it; is the folder marked immutable, or of another owner?",
    errno.EIO: "the disk fails; look at the system's log before going on",
}


@contextmanager
def storing_in(folder: Path) -> Generator[None]:
    """Tell a disk that says no as an error of ours; every other error passes unchanged.

    Libraries tell it in their own ways: as an OSError, or in words that hold the system's number.

    Raises:
        StorageError: the disk is full, read-only or failing, or the folder is not ours to write.
    """
    try:
        yield
    except CytolakeError:
        raise
    except Exception as error:
        told = _ERRNO.search(str(error))
        number = int(told[1]) if told else error.errno if isinstance(error, OSError) else None
        trouble = _TROUBLES.get(number or 0)
        if trouble is None:
            raise
        raise StorageError(f"{folder} cannot be written: {trouble}") from error


def plain(error: BaseException) -> str:
    """What a library says of an object store, without the bodies of answers: they hold tokens."""
    text = str(error).partition("Debug source")[0]
    said, body, rest = text.partition("<?xml")
    codes = _CODE.findall(body + rest)
    return " ".join([*said.split(), *codes])[:300]
