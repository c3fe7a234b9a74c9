"""How a process holds memory: what arrays leave is kept for the next ones. Knows no array."""

import ctypes
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # the names that glibc's mallopt knows, from malloc.h
_KEPT = 2**30


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
