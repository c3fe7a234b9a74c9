"""A full disk, a read-only folder, a clock set back: refused in our words, or borne; never harm."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.platform.errors import CytolakeError, StorageError
from cytolake.tests.faults.commands import COMMANDS
from cytolake.tests.faults.killing import (
    Rehearsal,
    check_what_is_left,
    child_words,
    rehearse,
    state_of,
)

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

Mount = Callable[..., Path]

ANOTHER_CLOCK = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += SHIFT;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (place) *place = exact.tv_sec;
    return exact.tv_sec;
}
"""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount something at a folder of `tmp_path`: `mount("disk", "-t", "tmpfs", "none")`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small or a read-only disk")
    mounted: list[Path] = []

    def add(name: str, *words: object) -> Path:
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        said = subprocess.run(
            ["mount", *map(str, words), str(place)], capture_output=True, text=True, check=False
        )
        if said.returncode and place not in mounted:
            pytest.skip(f"mount is refused here: {said.stderr.strip()}")
        assert said.returncode == 0, said.stderr
        if place not in mounted:
            mounted.append(place)
        return place

    yield add
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module", params=list(COMMANDS))
def rehearsal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Rehearsal:
    return rehearse(request.param, tmp_path_factory.mktemp("rehearsal") / request.param)


def bytes_on_disk(folder: Path) -> int:
    """What a folder takes on a disk of pages."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_full_disk_is_told_and_harms_nothing_and_the_command_finishes_once_there_is_room(
    rehearsal: Rehearsal, mount: Mount, share: float
) -> None:
    held = bytes_on_disk(rehearsal.start)
    more = max(bytes_on_disk(rehearsal.end) - held, 1 << 16)
    size = held + int(share * more)
    disk = mount("disk", "-t", "tmpfs", "-o", f"size={size}", "none")
    corpus = rehearsal.copy(disk / "corpus")
    try:
        COMMANDS[rehearsal.name].run(corpus)
        assert share, "nothing can be written to a full disk"  # a delete may need little room
    except StorageError as error:
        told = str(error)
        assert str(corpus) in told and "the disk is full" in told
    left = Corpus.open(corpus)
    assert left.verify(deep=True) == []
    assert state_of(left).content in [state.content for state in rehearsal.states]
    mount("disk", "-o", f"remount,size={size + 8 * more}")
    check_what_is_left(rehearsal, corpus)


def test_a_read_only_corpus_is_read_and_not_written(rehearsal: Rehearsal, mount: Mount) -> None:
    writable = rehearsal.copy(mount("disk", "-t", "tmpfs", "none") / "corpus")
    folder = mount("frozen", "--bind", writable)
    mount("frozen", "-o", "remount,ro,bind")
    with pytest.raises(StorageError, match="the disk is read-only") as told:
        COMMANDS[rehearsal.name].run(folder)
    assert str(folder) in str(told.value)
    corpus = Corpus.open(folder)
    assert corpus.verify(deep=True) == []
    assert state_of(corpus) == rehearsal.states[0]
    n_cells = corpus.sql("SELECT count(*) AS n FROM cells").column("n")[0].as_py()
    selection = corpus.select(primary_only=False)
    stream = Stream(corpus, selection, seed=0, cells_per_group=16)
    try:
        read = [batch.n_cells for group in stream.epoch(0) for batch in group]
    finally:
        stream.close()
    assert sum(read) == corpus.to_anndata().n_obs == n_cells


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to set a clock with")
def test_a_clock_set_back_changes_no_order(rehearsal: Rehearsal, tmp_path: Path) -> None:
    code, library = tmp_path / "clock.c", tmp_path / "clock.so"
    code.write_text(ANOTHER_CLOCK)
    words = ["cc", "-shared", "-fPIC", "-DSHIFT=-3600", "-o", str(library), str(code)]
    subprocess.run(words, check=True)
    folder = rehearsal.copy(tmp_path / "corpus")
    before = Corpus.open(folder)
    subprocess.run(
        child_words(rehearsal.name, folder),
        env={**os.environ, "LD_PRELOAD": str(library)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = Corpus.open(folder)
    assert after.verify(deep=True) == []
    assert state_of(after).content == rehearsal.states[-1].content
    if rehearsal.name in ("withdraw", "vacuum"):
        with pytest.raises(CytolakeError, match=r"withdrawn since|was ended by the vacuum"):
            Corpus.open(folder, before.snapshot)
    else:
        assert state_of(Corpus.open(folder, before.snapshot)) == rehearsal.states[0]
    log = after.log()
    assert [entry["snapshot"] for entry in log] == list(range(after.snapshot, -1, -1))
    assert log[0]["at"] < before.log()[0]["at"], "the clock was not set back"
    check_what_is_left(rehearsal, folder)
