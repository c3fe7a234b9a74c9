"""AnnData's zarr stores, format 2 and 3, as a folder or a zip.

Knows what a store may leave out; where AnnData keeps things is known by `anndata_file`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .anndata_file import AnnDataFile
from .zarr_store import open_store
from .zarr_tree import ZarrArray, ZarrGroup, root_group


@dataclass(frozen=True, kw_only=True, slots=True)
class ZarrSource(AnnDataFile):
    """A .zarr folder or .zarr.zip."""

    format: str = "zarr"

    @property
    def notes(self) -> tuple[str, ...]:
        """What `AnnDataFile` notes, and which arrays lack chunks.

        A writer may leave out a chunk of zeros, and a chunk that got lost looks the same. Parts of
        sparse matrices and names have no such chunks: there a missing one is an error.
        """
        with open_store(self.path) as store:
            root = root_group(store)
            arrays: list[ZarrArray] = []
            for layer in self.layers():
                arrays += _arrays(root.get(layer.name))
            arrays += _arrays(root.get("obs"))
            counted = [(item, *item.n_missing()) for item in arrays if not item.whole]
        gaps = [f"{item.name} ({missing} of {most})" for item, missing, most in counted if missing]
        if not gaps:
            return self.repeats()
        return (
            *self.repeats(),
            f"chunks that are not stored read as 0 or nothing, as zarr has it: {', '.join(gaps)}",
        )

    @contextmanager
    def _open(self) -> Generator[Any]:
        with open_store(self.path) as store:
            yield root_group(store)


def _arrays(item: ZarrGroup | ZarrArray | None) -> list[ZarrArray]:
    if isinstance(item, ZarrArray):
        return [item]
    return [] if item is None else [array for name in item for array in _arrays(item[name])]
