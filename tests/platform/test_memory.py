"""The allocator keeps what arrays leave, where it can be told to."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import numpy as np
from cytolake.platform.memory import reuse_memory

if sys.argv[1] == "reusing" and not reuse_memory():
    print("skip")
    raise SystemExit

def faults_of_an_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = np.ones(2**26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before + int(array[0] - 1)

faults_of_an_array()
print(sum(faults_of_an_array() for _ in range(20)))
"""


def n_faults(way: str) -> str:
    words = [sys.executable, "-c", PROGRAM, way]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_an_array_takes_the_room_of_the_last_one() -> None:
    reusing = n_faults("reusing")
    if reusing == "skip":
        pytest.skip("this system's allocator cannot be told to keep memory")
    assert int(reusing) < int(n_faults("as it is")) / 2
