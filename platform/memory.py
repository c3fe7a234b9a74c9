"""How a process holds memory: how much, and that arrays leave it to the next. Knows no array."""

import ctypes
import sys
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # the names that glibc's mallopt knows, from malloc.h
_KEPT = 2**30


def peak_resident() -> int:
    """The most memory that this process has had resident, in bytes; 0 where no system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    scale = 1 if sys.platform == "darwin" else 1024  # Linux tells kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@lru_cache(maxsize=1)
def reuse_memory() -> bool:
    """Let large arrays take the room of earlier ones, for the rest of this process.

    glibc maps each large array anew and gives it back when it goes, so that a worker that makes
    arrays of the same sizes over and over is handed empty pages each time, which on a virtual
    machine can take longer than the arithmetic (decision 50). Up to 1 GiB is kept.

    Returns:
        Whether this system's allocator can be told so; another one is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _KEPT))
