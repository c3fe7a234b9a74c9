"""Kills a command at its system calls: one traced run lists them, then each is a death of its own.

Knows no step of ours: a call is whatever writes, creates, renames, links, syncs or removes under
the corpus, a library's own included. A death is placed by the call's path and its number among the
calls of that name on that path in its thread, which is how strace counts.
"""

import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytolake.tests.faults.killing import Rehearsal, check_all, child_words

CALLS = (
    "write pwrite64 writev pwritev pwritev2 copy_file_range sendfile fallocate ftruncate truncate "
    "open openat creat rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat "
    "mkdir mkdirat rmdir fsync fdatasync sync_file_range chmod fchmod fchmodat"
).split()
# One thread each for whatever has a pool of them: the same calls come in the same threads again.
_FEW_THREADS = {
    "ZARR_THREADING__MAX_WORKERS": "1",
    "ZARR_ASYNC__CONCURRENCY": "1",
    "TOKIO_WORKER_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
}
_LINE = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)$")
_PLACE = re.compile(r'"([^"]*)"|\d<([^>]*)>')
_READING = ("open", "openat")
_CHANGING = re.compile(r"O_CREAT|O_TRUNC|O_WRONLY|O_RDWR")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One system call of a command.

    Attributes:
        name: such as `rename`.
        path: under the corpus; of two paths, or of a folder's descriptor and a name, the first.
        nth: its number among its thread's calls of that name on that path, from 1.
    """

    name: str
    path: str
    nth: int

    @property
    def kind(self) -> tuple[str, str, str]:
        """What calls have in common that do the same to files of the same sort."""
        path = Path(self.path)
        return self.name, path.parts[0], path.suffix


def calls_of(rehearsal: Rehearsal, folder: Path) -> list[Call]:
    """The calls under the corpus by which one undisturbed run changes it, in order.

    Args:
        rehearsal: of the command.
        folder: where its corpus is copied to; not there yet.
    """
    corpus, log = rehearsal.copy(folder), folder.with_suffix(".trace")
    traced = _strace(rehearsal, corpus, log, ["-e", "trace=" + ",".join(f"?{c}" for c in CALLS)])
    assert traced.returncode == 0, traced.stderr
    return list(parse(log.read_text(errors="replace").splitlines(), f"{corpus}/"))


def sample(calls: Sequence[Call], n_calls: int) -> list[Call]:
    """All calls, or so many of them: one of each kind in turn, drawn with a fixed seed."""
    draw = random.Random(0)
    shuffled = draw.sample(calls, len(calls))
    turn: Counter[tuple[str, str, str]] = Counter()
    keyed: list[tuple[int, int]] = []
    for place, call in enumerate(shuffled):
        keyed.append((turn[call.kind], place))
        turn[call.kind] += 1
    return [shuffled[place] for _, place in sorted(keyed)[:n_calls]]


def kill_at_calls(
    rehearsal: Rehearsal, calls: Sequence[Call], folder: Path
) -> Iterator[tuple[Call, bool, int]]:
    """Kill -9 a command as it enters each of some calls, and check what is left.

    Args:
        rehearsal: of the command.
        calls: where it dies, each time from the starting corpus.
        folder: where the corpora are made; each is removed after its check.

    Yields:
        The call, whether the process died in it (else it ended by itself, which must be checked
        all the same), and which of the states of `Rehearsal.states` was left.

    Raises:
        AssertionError: what a death left breaks a promise, or a run failed by itself.
    """
    died: dict[int, bool] = {}

    def die(number: int) -> Path:
        call, corpus = calls[number], rehearsal.copy(folder / str(number))
        inject = f"inject={call.name}:signal=SIGKILL:when={call.nth}"
        where = ["-P", f"{corpus}/{call.path}", "-e", f"trace={call.name}", "-e", inject]
        ended = _strace(rehearsal, corpus, corpus.with_suffix(".trace"), where)
        died[number] = "killed by SIGKILL" in corpus.with_suffix(".trace").read_text()
        assert died[number] or ended.returncode == 0, f"{call}: {ended}"
        return corpus

    for number, left in check_all(rehearsal, len(calls), die):
        yield calls[number], died[number], left


def _strace(
    rehearsal: Rehearsal, corpus: Path, log: Path, options: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    words = child_words(rehearsal.name, corpus, "--same-names")
    return subprocess.run(
        ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(log), *options, *words],
        env={**os.environ, **_FEW_THREADS},
        capture_output=True,
        text=True,
        check=False,
    )


def parse(lines: Sequence[str], under: str) -> Iterator[Call]:
    """Number the calls of a trace as strace does; give those that change something."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        if not (match := _LINE.match(line)):
            continue  # the second half of a call, or a thread's end
        thread, name, arguments = match.groups()
        entered = arguments.rpartition(") = ")[0] or arguments  # not the descriptor it returned
        found = [quoted or named for quoted, named in _PLACE.findall(entered)]
        paths = list(dict.fromkeys(path for path in found if path.startswith(under)))
        for path in paths:
            seen[thread, name, path] += 1
        if paths and (name not in _READING or _CHANGING.search(entered)):
            path = paths[0]
            yield Call(name=name, path=path.removeprefix(under), nth=seen[thread, name, path])
