"""MuData's h5mu files: one AnnData a modality. The genes are read like an h5ad's.

Knows which group is which modality by its name; the layout inside is `anndata_file`'s matter.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...platform.errors import SourceError
from .anndata_file import AnnDataFile
from .h5ad import open_hdf5

NAMES = {
    "rna": ("rna", "gex", "gene", "genes", "gene expression", "mrna"),
    "protein": ("protein", "prot", "adt", "ab", "antibody", "antibody capture", "cite"),
    "atac": ("atac", "peaks", "chromatin", "chromatin accessibility"),
}
"""What groups of a modality are called, in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class H5muSource(AnnDataFile):
    """One modality of an h5mu file.

    Attributes:
        group: its group under `mod`; the one of the genes where None.
    """

    format: str = "h5mu"
    group: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader took for granted, and groups of no modality that is known."""
        groups = groups_of(self.path)
        unknown = sorted(set(groups) - {name for name in groups if modality_of(name)})
        left_out = f"groups of no known modality were left out: {', '.join(unknown)}"
        return (*self.repeats(), *((left_out,) if unknown else ()))

    def _open(self) -> AbstractContextManager[Any]:
        return self._opened()

    @contextmanager
    def _opened(self) -> Generator[Any]:
        with open_hdf5(self.path) as file:
            group = self.group or _group_of_genes(self.path, list(file["mod"]))
            yield file["mod"][group]


def groups_of(path: Path) -> list[str]:
    """The groups of an h5mu, in its order."""
    with open_hdf5(path) as file:
        return [str(name) for name in file["mod"]]


def modality_of(group: str) -> str | None:
    """The modality that a group's name stands for; None where it is none that is known."""
    for modality, names in NAMES.items():
        if group.lower().strip() in names:
            return modality
    return None


def _group_of_genes(path: Path, groups: list[str]) -> str:
    found = [name for name in groups if modality_of(name) == "rna"]
    if len(found) != 1:
        raise SourceError(
            f"{path}: {len(found) or 'none'} of its modalities ({', '.join(groups)}) bears a name "
            f"of genes; expected one: {', '.join(NAMES['rna'])}"
        )
    return found[0]
