"""Single faults of a disk, drawn at random: one file's bytes change, or two files change places.

Knows files and the kinds they are of; knows nothing of what is then asked of the corpus.
"""

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAME_SIZE = "swapped, same size"
REMOVED = "removed"
_SWAPPED = "swapped"
_APPENDED = "bytes appended"
_INDEX_ENTRY = "chunk made missing"
_MISSING = struct.pack("<QQ", 2**64 - 1, 2**64 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        number: from 0; it seeds where in the file the fault lies.
        kind: of the file.
        what: is done to it.
        name: of the file in the corpus.
        other: the file that it changes places with; None if no such thing is done.
    """

    number: int
    kind: str
    what: str
    name: str
    other: str | None = None

    def __str__(self) -> str:
        """Say enough to find it again."""
        beside = f" with {self.other}" if self.other else ""
        return f"fault {self.number}: {self.name} {self.what}{beside}"


def draw_faults(
    folder: Path, kinds: Mapping[str, Sequence[str]], n_faults: int, seed: int
) -> list[Fault]:
    """Faults over all kinds of files and all ways to be damaged, as evenly as they come.

    Args:
        folder: the sound corpus.
        kinds: the files of each kind.
        n_faults: how many.
        seed: the same seed, the same faults.
    """
    draw = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    faults: list[Fault] = []
    while len(faults) < n_faults:
        if not pairs:
            pairs = [(kind, what) for kind in sorted(kinds) for what in WAYS]
            draw.shuffle(pairs)
        kind, what = pairs.pop()
        names = [name for name in kinds[kind] if what != _INDEX_ENTRY or _is_shard(name)]
        data = {name: (folder / name).read_bytes() for name in names}
        if what in (SAME_SIZE, _SWAPPED):
            couples = [
                (one, other)
                for one in names
                for other in names
                if one != other
                and (len(data[one]) == len(data[other])) == (what == SAME_SIZE)
                and data[one] != data[other]
            ]
            if couples:
                name, other = draw.choice(couples)
                faults.append(_fault(len(faults), kind, what, name, other))
        elif names := [name for name in names if data[name] or what in (REMOVED, _APPENDED)]:
            # A kind may have one large file among many small ones: it is drawn as often as they.
            large = max(names, key=lambda name: len(data[name]))
            name = large if draw.random() < 0.25 else draw.choice(names)
            faults.append(_fault(len(faults), kind, what, name))
    return faults


def inflict(fault: Fault, folder: Path, seed: int) -> list[str]:
    """Damage a corpus; the names of the files that changed."""
    path = folder / fault.name
    data = path.read_bytes()
    if fault.other is not None:
        _write(path, (folder / fault.other).read_bytes())
        _write(folder / fault.other, data)
        return [fault.name, fault.other]
    damage = WAYS[fault.what]
    assert damage is not None
    damaged = damage(bytearray(data), random.Random(f"{seed}/{fault.number}"))
    assert damaged != data, f"{fault} changes nothing"
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    return [fault.name]


def mend(names: Sequence[str], folder: Path, sound: Path) -> None:
    """Put the files back as they are in the sound corpus."""
    for name in names:
        _write(folder / name, (sound / name).read_bytes())


def _fault(number: int, kind: str, what: str, name: str, other: str | None = None) -> Fault:
    return Fault(number=number, kind=kind, what=what, name=name, other=other)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # payloads are frozen; a file of another inode is none we know
    path.write_bytes(data)


def _is_shard(name: str) -> bool:
    return ".zarr/X/" in name and "/c/" in name


def _flip_bit(data: bytearray, draw: random.Random) -> bytes:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def _change_byte(data: bytearray, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    data[place] = draw.choice([byte for byte in range(256) if byte != data[place]])
    return bytes(data)


def _truncate(data: bytearray, draw: random.Random) -> bytes:
    return bytes(data[: draw.randrange(1, len(data))] if len(data) > 1 else b"")


def _empty(data: bytearray, draw: random.Random) -> bytes:
    return b""


def _append(data: bytearray, draw: random.Random) -> bytes:
    return bytes(data) + draw.randbytes(draw.randrange(1, 64))


def _remove(data: bytearray, draw: random.Random) -> None:
    return None


def _zero(data: bytearray, draw: random.Random) -> bytes:
    """A block of 512 bytes, or what a short file has of it, reads as zeros."""
    begin = draw.randrange(len(data)) // 512 * 512
    size = min(512, len(data) - begin)
    if not any(data[begin : begin + size]):  # it was zeros before
        return _change_byte(data, draw)
    data[begin : begin + size] = bytes(size)
    return bytes(data)


def _miss_chunk(data: bytearray, draw: random.Random) -> bytes:
    """An entry of a shard's index says that its chunk is not there; its checksum follows suit.

    So does a writer that dies, or one that leaves empty chunks out: readers of Zarr give zeros.
    """
    import google_crc32c

    n_entries = 1
    while not _is_index(data, n_entries):
        n_entries += 1
    begin = len(data) - 4 - 16 * n_entries
    place = begin + 16 * draw.randrange(n_entries)
    data[place : place + 16] = _MISSING
    data[-4:] = google_crc32c.value(bytes(data[begin:-4])).to_bytes(4, "little")
    return bytes(data)


def _is_index(data: bytearray, n_entries: int) -> bool:
    import google_crc32c

    index = bytes(data[-4 - 16 * n_entries : -4])
    assert len(index) == 16 * n_entries, "no index ends this shard"
    return google_crc32c.value(index) == int.from_bytes(data[-4:], "little")


WAYS: Mapping[str, Callable[[bytearray, random.Random], bytes | None] | None] = {
    "bit flipped": _flip_bit,
    "byte changed": _change_byte,
    "truncated": _truncate,
    "emptied": _empty,
    _APPENDED: _append,
    REMOVED: _remove,
    _SWAPPED: None,
    SAME_SIZE: None,
    "block zeroed": _zero,
    _INDEX_ENTRY: _miss_chunk,
}
"""What is done to a file -> how; None where two files change places."""
