"""Summaries: what the terminal shows is what the corpus says."""

import io

from cytolake.corpus.report.summary import show_corpus, show_log, show_why
from cytolake.corpus.store import Corpus
from rich.console import Console


def test_show_log_and_why_print_the_corpus_own_answers(fake_corpus: Corpus) -> None:
    screen = Console(file=io.StringIO(), width=200)
    show_corpus(fake_corpus.show(), screen)
    show_log(fake_corpus.log(), screen)
    show_why(fake_corpus.why("TTT"), screen)
    show_why(fake_corpus.why("CCC"), screen)
    shown = str(screen.file.getvalue())  # pyright: ignore[reportAttributeAccessIssue]
    assert "cells by cell_type" in shown and "quality control" in shown
    assert "added blood" in shown and "created" in shown
    assert "TTT of blood: dropped (total_counts)" in shown
    assert "CCC of lung: kept; equal to a cell kept before" in shown
