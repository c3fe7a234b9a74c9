"""A receipt's rules in words: what each dropped, what it keeps, why it was skipped."""

from typing import Any

import pytest
from cytolake.corpus.log.receipts import Receipt
from cytolake.ingest.rule_accounts import rules_of


def a_receipt(**given: Any) -> Receipt:
    return Receipt(
        source_id="a", uri="a", sha256="", n_bytes=0, reader="h5ad", n_read=0, n_kept=0, **given
    )


@pytest.mark.parametrize(
    ("thresholds", "rule", "keeps"),
    [
        ({"total_counts_low": -3.0, "total_counts_high": 5649.08}, "total_counts", "0 to 5,649"),
        ({"total_counts_low": 500.0}, "total_counts", ">= 500"),
        ({"mitochondrial_high": 0.057108}, "mitochondrial", "<= 0.05711"),
        ({"min_genes": 7.0}, "min_genes", ">= 7"),
        ({"doublet_score": 0.25}, "doublet", "<= 0.25"),
        (
            {"doublet_score_least": 0.2, "doublet_score_greatest": 0.3},
            "doublet",
            "<= 0.2 to 0.3, by sample",
        ),
    ],
    ids=["both", "low", "high", "least", "doublets", "by sample"],
)
def test_what_a_rule_keeps_is_said_in_words(
    thresholds: dict[str, float], rule: str, keeps: str
) -> None:
    assert rules_of(a_receipt(thresholds=thresholds)) == [
        {"rule": rule, "dropped": 0, "keeps": keeps, "skipped because": None}
    ]


def test_a_rule_without_thresholds_stands_where_it_dropped_or_was_skipped() -> None:
    receipt = a_receipt(dropped={"mutational_burden": 4}, skipped_rules={"mitochondrial": "panel"})
    assert rules_of(receipt) == [
        {"rule": "mitochondrial", "dropped": 0, "keeps": None, "skipped because": "panel"},
        {"rule": "mutational_burden", "dropped": 4, "keeps": None, "skipped because": None},
    ]


def test_a_receipt_without_rules_has_no_rows() -> None:
    assert rules_of(a_receipt()) == []
