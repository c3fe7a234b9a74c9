"""Rows that are bulk samples: refused where they are none, told of where they are.

Knows names and settings; knows no matrix.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..platform.errors import SourceError
from .sources.protocol import Names
from .sources_toml import SourceEntry

_NO_SAMPLES = frozenset(
    "entrez_gene_id hugo_symbol geneid gene_id gene_name gene_symbol gene_type transcript_id "
    "length effective_length start end chr strand".split()
)
"""Columns that tables of bulk counts have beside samples (cBioPortal, featureCounts, RSEM, STAR),
in small letters: numbers among them would pass for counts."""


def check_samples(
    entry: SourceEntry, samples: Names, repeated: NDArray[np.int64], path: Path
) -> str:
    """Refuse rows that are no samples of their own.

    Args:
        entry: the source's settings.
        samples: the names of its rows.
        repeated: rows that bear the name of an earlier one. Shape (n_repeated,).
        path: of the source, for errors.

    Returns:
        What the rules make of samples, for the receipt.

    Raises:
        SourceError: a row describes genes, or two rows have one name.
    """
    strangers = [repr(str(name)) for name in samples if str(name).lower() in _NO_SAMPLES]
    if strangers:
        raise SourceError(
            f"{path}: {', '.join(strangers)} would be read as samples: they describe genes; leave "
            "them out of the table"
        )
    if len(repeated):  # told by its row: errors go on record, where no sample may be named
        raise SourceError(
            f"{path}: {len(repeated)} samples bear the name of an earlier one, the first in row "
            f"{repeated[0]} (from 0): bulk samples are never summed; give each a name of its own, "
            'or set duplicate_barcodes = "keep"'
        )
    rules = entry.quality
    settings = {
        "total_counts": (rules.total_counts_n, rules.min_counts, rules.max_counts),
        "mitochondrial": (rules.mitochondrial_n, rules.max_mito_fraction),
        "mutational_burden": (rules.mutational_burden or None,),
    }
    off = [rule for rule, values in settings.items() if all(value is None for value in values)]
    said = f": {', '.join(off)} judge cells and are off unless set" if off else ""
    return f"rows are bulk samples{said}; medians and training leave them out beside cells"
