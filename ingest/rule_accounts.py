"""What a receipt says of each quality rule. Knows no cell and no page."""

from ..corpus.log.receipts import Receipt

_BOUNDS = {
    "total_counts": ("total_counts_low", "total_counts_high"),
    "genes_detected": ("genes_detected_low", "genes_detected_high"),
    "mitochondrial": ("mitochondrial_low", "mitochondrial_high"),
    "min_genes": ("min_genes", ""),
    "doublet": ("", "doublet_score"),
}
"""Rule -> the thresholds of a receipt that belong to it: the lower and the upper one."""


def rules_of(receipt: Receipt) -> list[dict[str, object]]:
    """One row a quality rule that a receipt tells of: what it dropped, what it keeps, or why not.

    Returns:
        `rule`, `dropped` (cells), `keeps` (in words), `skipped because`.
    """
    rules = dict.fromkeys([*_BOUNDS, *receipt.dropped, *receipt.skipped_rules])
    rows: list[dict[str, object]] = []
    for rule in rules:
        low, high = (receipt.thresholds.get(name) for name in _BOUNDS.get(rule, ("", "")))
        keeps = _by_sample(receipt) if rule == "doublet" and high is None else _range(low, high)
        if rule not in receipt.dropped and rule not in receipt.skipped_rules and keeps is None:
            continue
        rows.append(
            {
                "rule": rule,
                "dropped": receipt.dropped.get(rule, 0),
                "keeps": keeps,
                "skipped because": receipt.skipped_rules.get(rule),
            }
        )
    return rows


def _by_sample(receipt: Receipt) -> str | None:
    """The doublet thresholds of a source whose samples have different ones."""
    least, most = (receipt.thresholds.get(f"doublet_score_{end}") for end in ("least", "greatest"))
    if least is None or most is None:
        return None
    return f"<= {_rounded(least)} to {_rounded(most)}, by sample"


def _range(low: float | None, high: float | None) -> str | None:
    if low is not None and high is not None:
        return f"{_rounded(max(low, 0))} to {_rounded(high)}"  # a count below 0 cannot be
    if low is not None:
        return f">= {_rounded(low)}"
    return None if high is None else f"<= {_rounded(high)}"


def _rounded(bound: float) -> str:
    return f"{bound:,.0f}" if abs(bound) >= 1000 else f"{bound:.4g}"
