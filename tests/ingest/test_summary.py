import pytest
from cytolake.corpus.log.receipts import Receipt
from cytolake.ingest.report import IngestedSource, IngestReport
from cytolake.ingest.summary import rules_table


@pytest.mark.parametrize(
    ("thresholds", "rule", "keeps"),
    [
        ({"total_counts_low": -5.0, "total_counts_high": 90.0}, "total_counts", "0 to 90"),
        ({"total_counts_low": 500.0}, "total_counts", ">= 500"),
        ({"mitochondrial_high": 0.05}, "mitochondrial", "<= 0.05"),
        ({"genes_detected_low": 200.0, "genes_detected_high": 2500.0}, "genes_detected",
         "200 to 2,500"),
        ({"min_genes": 7.0}, "min_genes", ">= 7"),
        ({"doublet_score": 0.25}, "doublet", "<= 0.25"),
    ],
    ids=["statistic", "least", "greatest", "genes", "coding genes", "doublets"],
)  # fmt: skip
def test_a_rule_tells_what_it_keeps_by_the_bounds_that_it_has(
    thresholds: dict[str, float], rule: str, keeps: str
):
    receipt = Receipt(
        source_id="s", uri="", sha256="", n_bytes=1, reader="h5ad", n_read=9, n_kept=6,
        dropped={"filter:qc": 3}, thresholds=thresholds,
    )  # fmt: skip
    source = IngestedSource(source_id="s", place="s", status="added", receipt=receipt)
    rows = rules_table(IngestReport(corpus_uri="c", sources=(source,), seconds=1.0)).to_pylist()
    told = {row["rule"]: (row["dropped"], row["keeps"]) for row in rows}
    assert told == {rule: (0, keeps), "filter:qc": (3, None)}
