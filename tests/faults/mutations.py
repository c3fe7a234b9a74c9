"""Mutations of source files, drawn at random: bytes, blocks and lines that are not what they were.

Knows files, gzip and lines of text; knows no reader and nothing of what is then asked of the file.
"""

import gzip
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytolake.tests.faults.real_sources import files_of

_GZIP = b"\x1f\x8b"
_LANDMARKS = re.compile(
    rb"TREE|SNOD|HEAP|GCOL|OHDR|OCHK|FRHP|BTHD|\x89HDF|PK\x01\x02|PK\x03\x04|PK\x05\x06|ustar"
)
"""What stands near the bytes that steer a reader of HDF5, zip and tar: few among many of data."""

_NEAR = 192


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One mutation.

    Attributes:
        number: from 0; with the seed it decides where in the file it lies.
        kind: format of the source.
        source: the source, a path below the folder of sources.
        file: the file of it that is changed, a path below the source; `.` where it is one file.
        what: is done to it, one of `WAYS`.
    """

    number: int
    kind: str
    source: str
    file: str
    what: str

    def __str__(self) -> str:
        """Say enough to find it again."""
        place = self.source if self.file == "." else f"{self.source}/{self.file}"
        return f"mutation {self.number}: {place}: {self.what}"


def draw_mutations(
    folder: Path, sources: Mapping[str, Sequence[Path]], n_mutations: int, seed: int
) -> list[Mutation]:
    """Mutations over all formats and all ways, as evenly as they come.

    Args:
        folder: the folder of sources.
        sources: format -> its sources.
        n_mutations: how many.
        seed: the same seed, the same mutations.
    """
    draw = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    found: list[Mutation] = []
    while len(found) < n_mutations:
        if not pairs:
            pairs = [(kind, what) for kind in sorted(sources) for what in WAYS]
            draw.shuffle(pairs)
        kind, what = pairs.pop()
        source = draw.choice(sources[kind])
        files = [path for path in files_of(source) if fits(path, what)]
        if not files:
            continue
        # A store has many small files: its large ones, with the counts, are drawn as often.
        large = sorted(files, key=lambda path: path.stat().st_size)[-4:]
        path = draw.choice(large if draw.random() < 0.5 else files)
        found.append(
            Mutation(
                number=len(found),
                kind=kind,
                source=source.relative_to(folder).as_posix(),
                file=path.relative_to(source).as_posix(),
                what=what,
            )
        )
    return found


def fits(path: Path, what: str) -> bool:
    """Whether a file can be changed in a way: only text has lines, only a gzip can be repacked."""
    begin = path.read_bytes()[:512]
    if not begin:
        return False
    if what in _OF_TEXT:
        return _is_text(begin if not begin.startswith(_GZIP) else _begin_unpacked(path))
    return what not in _OF_GZIP or begin.startswith(_GZIP)


def inflict(
    mutation: Mutation, folder: Path, into: Path, others: Sequence[Path], seed: int
) -> Path:
    """Copy a source and change the copy.

    Args:
        mutation: what to change.
        folder: the folder of sources.
        into: a folder, not there yet, for the copy.
        others: files from which foreign bytes are taken.
        seed: of the campaign.

    Returns:
        The copy: a file or a folder.
    """
    source = folder / mutation.source
    copy = into / source.name
    into.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, copy)
    else:
        shutil.copyfile(source, copy)
    path = copy / mutation.file if mutation.file != "." else copy
    draw = random.Random(f"{seed}/{mutation.number}")
    data = path.read_bytes()
    changed = data
    for _ in range(20):  # zeros over zeros change nothing
        if mutation.what == _FOREIGN:
            changed = _splice(data, draw.choice(others).read_bytes(), draw)
        else:
            changed = WAYS[mutation.what](data, draw)
        if changed != data:
            break
    path.write_bytes(changed)
    return copy


def _place(data: bytes, size: int, draw: random.Random) -> int:
    """Where `size` bytes are changed: anywhere, or as often near what steers a reader."""
    last = max(0, len(data) - size)
    marks = [match.start() for match in _LANDMARKS.finditer(data)] if draw.random() < 0.5 else []
    if not marks:
        return draw.randint(0, last)
    return min(last, draw.choice(marks) + draw.randrange(_NEAR))


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    changed[_place(data, 1, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _change(data: bytes, draw: random.Random) -> bytes:
    size = min(len(data), draw.randint(1, 16))
    at = _place(data, size, draw)
    return data[:at] + draw.randbytes(size) + data[at + size :]


def _zero(data: bytes, draw: random.Random) -> bytes:
    size = min(len(data), draw.choice((8, 64, 512, 4096)))
    at = _place(data, size, draw)
    return data[:at] + bytes(size) + data[at + size :]


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def _remove(data: bytes, draw: random.Random) -> bytes:
    """Some bytes are gone and the rest moves up."""
    size = min(len(data), draw.choice((1, 2, 64, 1000)))
    at = _place(data, size, draw)
    return data[:at] + data[at + size :]


def _splice(data: bytes, foreign: bytes, draw: random.Random) -> bytes:
    size = min(len(data), len(foreign), draw.choice((16, 128, 1024, 8192)))
    begin = draw.randint(0, len(foreign) - size)
    at = _place(data, size, draw)
    return data[:at] + foreign[begin : begin + size] + data[at + size :]


def _splice_own(data: bytes, draw: random.Random) -> bytes:
    return _splice(data, data, draw)


def _in_lines(change: Callable[[list[bytes], random.Random], list[bytes]]):
    """A change of lines, inside the gzip where there is one."""

    def changed(data: bytes, draw: random.Random) -> bytes:
        packed = data.startswith(_GZIP)
        lines = (gzip.decompress(data) if packed else data).splitlines(keepends=True)
        text = b"".join(change(lines, draw))
        return gzip.compress(text, 1, mtime=0) if packed else text

    return changed


def _change_line(lines: list[bytes], draw: random.Random) -> list[bytes]:
    """One character of a line is another that such a file has, or one that it should not."""
    at = _line(lines, draw)
    line = bytearray(lines[at])
    line[draw.randrange(len(line))] = draw.choice(b"0123456789-.eE,\t \"'Nx\xe9\n")
    return [*lines[:at], bytes(line), *lines[at + 1 :]]


def _remove_line(lines: list[bytes], draw: random.Random) -> list[bytes]:
    at = _line(lines, draw)
    return [*lines[:at], *lines[at + 1 :]]


def _repeat_line(lines: list[bytes], draw: random.Random) -> list[bytes]:
    at = _line(lines, draw)
    return [*lines[:at], lines[at], *lines[at:]]


def _change_number(lines: list[bytes], draw: random.Random) -> list[bytes]:
    """A number of a line becomes another one."""
    at = _line(lines, draw)
    numbers = list(re.finditer(rb"\d+", lines[at]))
    if not numbers:
        return _change_line(lines, draw)
    one, odd = draw.choice(numbers), (b"-1", b"0", b"2.5", b"nan", b"70000", b"5000000000", b"1e3")
    line = lines[at][: one.start()] + draw.choice(odd) + lines[at][one.end() :]
    return [*lines[:at], line, *lines[at + 1 :]]


def _line(lines: list[bytes], draw: random.Random) -> int:
    """Any line, or as often one of the first three, which say what the others mean."""
    return draw.randrange(min(3, len(lines)) if draw.random() < 0.3 else len(lines))


def _cut_text(data: bytes, draw: random.Random) -> bytes:
    """A gzip that is whole, of a text that is not."""
    text = gzip.decompress(data)
    return gzip.compress(text[: draw.randrange(len(text))], 1, mtime=0)


def _begin_unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read(512)


def _is_text(begin: bytes) -> bool:
    return not re.search(rb"[^\t\n\r\x20-\x7e]", begin)


_FOREIGN = "spliced from another file"
_OF_GZIP = {"text cut inside a whole gzip"}

WAYS: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flipped": _flip,
    "bytes changed": _change,
    "block zeroed": _zero,
    "cut short": _cut,
    "bytes removed": _remove,
    "spliced from the same file": _splice_own,
    _FOREIGN: _splice_own,  # `inflict` gives it the other file
    "line changed": _in_lines(_change_line),
    "line removed": _in_lines(_remove_line),
    "line repeated": _in_lines(_repeat_line),
    "number changed": _in_lines(_change_number),
    "text cut inside a whole gzip": _cut_text,
}
"""What is done to a file -> how."""

_OF_TEXT = {name for name in WAYS if name.startswith(("line", "number"))}
