from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.payload.segments import Segment
from cytolake.platform.errors import DamageError

from .made_segments import (
    copied,
    damaged,
    files_of,
    flipped,
    made_batch,
    made_segment,
    record_sha256,
    sealed,
)

Answer = tuple[list[Any], ...]


def answer_of(folder: Path, seal: str, keys: Any) -> Answer:
    """All that a reader of a segment is told."""
    segment = Segment.open(folder, seal)
    read = segment.read(np.arange(segment.record.n_cells), keys)
    sketch = segment.sketch
    parts = (*read, segment.gene_ids, sketch.bins, sketch.n_values)
    return tuple(part.tolist() for part in parts)


@pytest.fixture(scope="session")
def sound_and_other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A segment, another one whose counts fill files of equal size, and the first one's keys."""
    folder = tmp_path_factory.mktemp("sound")
    batch = made_batch(40, 60, seed=5)
    other = replace(batch, counts=np.roll(batch.counts, 1))
    sound = made_segment(folder / "a" / "s-0", batch)
    return sound, made_segment(folder / "b" / "s-0", other), batch.content_keys


def test_a_single_fault_is_an_error_or_changes_nothing(
    sound_and_other: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    sound, _, keys = sound_and_other
    seal = record_sha256(sound)
    folder = copied(sound, tmp_path)
    right = answer_of(folder, seal, keys)
    rng = np.random.default_rng(1)
    steering = {"segment.json", "rna.zarr/X/data/zarr.json"}
    n_found = 0
    for name in files_of(folder):
        path = folder / name
        data = path.read_bytes()
        places = range(len(data)) if name in steering else rng.integers(0, len(data), 12).tolist()
        faults: list[bytes | None] = [flipped(data, p, int(rng.integers(8))) for p in places]
        faults += [None, b"", data[: len(data) // 2], data[:-1], data + b"x", bytes(len(data))]
        for fault in faults:
            if fault == data:
                continue
            with damaged(path, fault):
                try:
                    assert answer_of(folder, seal, keys) == right, name
                except DamageError:
                    n_found += 1
    assert n_found > 2000
    assert answer_of(folder, seal, keys) == right


@pytest.mark.parametrize("name", ["data/c/0", "indices/c/0", "indptr/c/0", "data/zarr.json"])
def test_a_file_swapped_for_a_sound_one_of_another_segment_is_told(
    sound_and_other: tuple[Path, Path, Any], tmp_path: Path, name: str
) -> None:
    sound, _, keys = sound_and_other
    stranger = made_segment(tmp_path / "b" / "s-0", made_batch(40, 60, seed=6))
    folder = copied(sound, tmp_path / "a")
    (folder / "rna.zarr/X" / name).write_bytes((stranger / "rna.zarr/X" / name).read_bytes())
    right = answer_of(sound, record_sha256(sound), keys)
    try:
        assert answer_of(folder, record_sha256(sound), keys) == right
    except DamageError as error:
        assert str(folder) in str(error)


def test_counts_swapped_for_others_of_equal_size_are_told_by_the_cells_keys(
    sound_and_other: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    sound, other, keys = sound_and_other
    folder = copied(sound, tmp_path)
    swapped = (other / "rna.zarr/X/data/c/0").read_bytes()
    path = folder / "rna.zarr/X/data/c/0"
    path.write_bytes(swapped)
    # Of equal size or not: the record is made to know no better.
    sealed(folder)
    segment = Segment.open(folder)
    with pytest.raises(DamageError, match="row 1 holds other counts than the table cells"):
        segment.read(np.arange(40), keys)
    assert Segment.open(sound).read(np.arange(40), keys)[0][-1] > 0
