"""Every number of the quality report, against plain queries; and what a hostile source may do."""

import base64
import re
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from cytolake.corpus.log.receipts import Receipt
from cytolake.corpus.store import Corpus
from cytolake.ingest import qc_report
from cytolake.ingest.qc_report import qc_sections, write_qc_report
from cytolake.platform.errors import CorpusError
from cytolake.platform.page import Beside, Prose, Section, Table
from cytolake.platform.tracking import MemoryTracker

from .qc_corpora import bring, some_rows

HOSTILE = "<script>alert('x')</script> & \"$y$\" \u2603"
REASONS = ("total_counts", "mitochondrial", f"filter:{HOSTILE}")
THRESHOLDS = {"total_counts_low": -3.0, "total_counts_high": 4000.0, "min_genes": 7.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four sources: a plain one, a hostile one, a panel, one of lost cells; and two refused."""
    corpus = Corpus.create(tmp_path_factory.mktemp("qc") / "lake")
    dropped = [row | {"reason": REASONS[i % 2]} for i, row in enumerate(some_rows(2, 20))]
    genes = {"n_read": 200, "n_mapped": 150, "n_ensembl": 140, "n_retired": 10, "n_unmapped": 50}
    bring(
        corpus, "plain", kept=some_rows(1, 50), dropped=dropped, thresholds=THRESHOLDS, genes=genes,
        skipped_rules={"min_genes": "switched off"}, versions={"zarr": "3.1"}, recover="log1p",
    )  # fmt: skip
    lost = [row | {"reason": REASONS[2]} for row in some_rows(4, 4)]
    bring(
        corpus, HOSTILE, kept=some_rows(3, 9), dropped=lost, warnings=(HOSTILE, "x" * 200),
        skipped_rules={"mitochondrial": HOSTILE}, uri=HOSTILE, layer=HOSTILE,
        own={HOSTILE: [HOSTILE] * 9, "doublet_score": [HOSTILE, *["0.5"] * 8]},
        versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    bring(corpus, "panel", kept=some_rows(5, 5, mito=False), seed=2, panel=True, panel_use=True)
    gone = [row | {"reason": "mutational_burden"} for row in some_rows(6, 12)]
    bring(corpus, "lost", kept=[], dropped=gone, seed=3)
    for name, reason in (("bad", "at first"), ("bad", HOSTILE), ("plain", "before it was mended")):
        refuse(corpus, name, reason)
    return Corpus.open(corpus.uri)


def refuse(corpus: Corpus, name: str, reason: str) -> None:
    receipt = Receipt(
        source_id=name, uri="file:///bad", sha256="", n_bytes=0, reader="", n_read=0, n_kept=0
    )
    Corpus.open(corpus.uri).refuse_source(receipt, reason)


def section(sections: list[Section], title: str) -> Section:
    return next(part for part in sections if part.title == title)


def tables(part: Section) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    for piece in part.parts:
        inner = piece.parts if isinstance(piece, Beside) else (piece,)
        found += [table.rows.to_pylist() for table in inner if isinstance(table, Table)]
    return found


def facts(part: Section) -> dict[str, str]:
    return {row[""]: row["from the receipt"] for row in tables(part)[1]}


def plain_rows(corpus: Corpus, view: str, source_id: str) -> list[dict[str, Any]]:
    rows = corpus.sql(f"SELECT * FROM {view}").to_pylist()
    return [row for row in rows if row["source_id"] == source_id]


def test_the_table_of_sources_says_what_plain_queries_say(corpus: Corpus) -> None:
    [rows] = tables(qc_sections(corpus)[0])
    assert [row["source"] for row in rows] == [*sorted([HOSTILE, "lost", "panel", "plain"]), "bad"]
    for row in rows[:4]:
        cells = plain_rows(corpus, "cells", row["source"])
        dropped = plain_rows(corpus, "dropped", row["source"])
        n_read = len(cells) + len(dropped)
        assert (row["status"], row["read"], row["kept"]) == ("accepted", n_read, len(cells))
        assert row["dropped, %"] == pytest.approx(100 * len(dropped) / n_read)
        assert row["in snapshot"] == len(cells)
        assert row["not primary"] == sum(not cell["is_primary"] for cell in cells)
        for name, column in (("median counts", "n_counts"), ("median genes", "n_genes")):
            assert row[name] == (median(cell[column] for cell in cells) if cells else None)
    by_name = {row["source"]: row for row in rows}
    fractions = [cell["mito_fraction"] for cell in plain_rows(corpus, "cells", "plain")]
    known = [value for value in fractions if value is not None]
    assert by_name["plain"]["median mito, %"] == pytest.approx(100 * median(known))
    assert by_name["plain"]["with an id, %"] == 75
    assert by_name["panel"]["panel"] == "used in medians"
    assert by_name["panel"]["median mito, %"] is None
    assert by_name["bad"]["status"] == "refused" and by_name["bad"]["read"] is None


def test_the_whole_is_told_in_words(corpus: Corpus) -> None:
    words = qc_sections(corpus)[0].parts[0]
    assert isinstance(words, Prose)
    n_cells = corpus.sql("SELECT count(*) AS n FROM cells").to_pylist()[0]["n"]
    n_dropped = corpus.sql("SELECT count(*) AS n FROM dropped").to_pylist()[0]["n"]
    others = corpus.sql("SELECT count(*) AS n FROM cells WHERE NOT is_primary").to_pylist()[0]["n"]
    assert words.text.startswith(f"4 sources, {n_cells + n_dropped} cells read, {n_cells} kept (")
    assert f"{n_cells} are in this snapshot, {others} of them the same" in words.text
    assert words.text.endswith("2 sources refused.")


def test_a_screen_tells_rules_file_and_duplicates(corpus: Corpus) -> None:
    screen = section(qc_sections(corpus), "plain")
    rules, _ = tables(screen)
    assert rules == [
        {"rule": "total_counts", "dropped": 10, "keeps": "0 to 4,000", "skipped because": None},
        {"rule": "mitochondrial", "dropped": 10, "keeps": None, "skipped because": None},
        {"rule": "min_genes", "dropped": 0, "keeps": ">= 7", "skipped because": "switched off"},
    ]
    told = facts(screen)
    receipt = corpus.find_source("plain")
    assert receipt is not None
    assert told["sha256"] == receipt.receipt.sha256
    assert told["file"] == "file:///data/plain (1,000 bytes)"
    assert told["read as"] == "h5ad, counts from X, recovered by log1p"
    assert told["committed"] == "snapshot 1, in 1 unit"
    assert told["versions"] == "zarr 3.1"
    assert told["equal counts"] == f"9 in {HOSTILE}"  # one seed: the same counts
    assert facts(section(qc_sections(corpus), "panel"))["duplicates"] == "none found"


def test_a_panel_is_said_to_be_one(corpus: Corpus) -> None:
    words = section(qc_sections(corpus, ["panel"]), "panel").parts[0]
    assert isinstance(words, Prose)
    assert "A panel (under half of the coding genes), used in medians." in words.text


def test_a_source_that_lost_all_its_cells_has_its_screen(corpus: Corpus) -> None:
    screen = section(qc_sections(corpus, ["lost"]), "lost")
    assert screen.parts[0] == Prose(
        text="12 cells read, 0 kept (0 %), 12 dropped; 0 in this snapshot, 0 of them not primary."
    )
    assert tables(screen)[0][0]["dropped"] == 12


def test_refused_sources_stand_with_their_last_reason(corpus: Corpus) -> None:
    [rows] = tables(section(qc_sections(corpus, []), "Refused sources"))
    assert [(row["source"], row["tries"], row["now"]) for row in rows] == [
        ("bad", 2, "refused"),
        ("plain", 1, "accepted, snapshot 1"),
    ]
    assert rows[0]["why, the last time"] == HOSTILE


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{name}={value}"
            if name == "href":
                self.links.add(value or "")
            if name == "id":
                self.anchors.add(value or "")
            if name == "alt":
                self.alts.append(value or "")


def test_a_hostile_source_can_write_nothing_but_text(corpus: Corpus, tmp_path: Path) -> None:
    page = write_qc_report(corpus, tmp_path / "qc.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10
    reader = _Reader()
    reader.feed(page)
    assert not reader.tags & {"script", "iframe", "object", "link", "base"}
    for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        tree = xml.fromstring(base64.b64decode(data))
        assert not [node for node in tree.iter() if node.tag.endswith("script")]


def test_every_link_leads_to_a_section_and_every_picture_has_words(
    corpus: Corpus, tmp_path: Path
) -> None:
    reader = _Reader()
    reader.feed(write_qc_report(corpus, tmp_path / "qc.html").read_text())
    assert reader.links == {f"#{anchor}" for anchor in reader.anchors}
    assert len(reader.links) == 6
    assert len(reader.alts) == 5
    assert any("70 cells read, 50 kept" in alt for alt in reader.alts)


def test_the_same_snapshot_gives_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    first = write_qc_report(corpus, tmp_path / "a.html", ["plain", "panel"])
    second = write_qc_report(Corpus.open(corpus.uri), tmp_path / "b.html", ["plain", "panel"])
    assert first.read_bytes() == second.read_bytes()


def test_an_earlier_snapshot_knows_only_what_was_there(corpus: Corpus) -> None:
    titles = [part.title for part in qc_sections(Corpus.open(corpus.uri, 1))]
    assert titles == ["All sources", "plain"]


def test_an_empty_corpus_has_a_page_that_says_so(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lake")
    page = write_qc_report(corpus, tmp_path / "qc.html").read_text()
    assert "0 sources, 0 cells read, 0 kept; 0 are in this snapshot" in page
    assert "<img" not in page


def test_of_many_sources_those_that_lost_most_have_a_screen_and_the_page_says_so(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qc_report, "MOST_SECTIONS", 2)
    sections = qc_sections(corpus)
    assert [part.title for part in sections] == [
        "All sources", HOSTILE, "lost", "Refused sources",
    ]  # fmt: skip
    said = [part.text for part in sections[0].parts if isinstance(part, Prose)]
    assert any("lists all 4 sources; 2 have a screen below: the 2 that dropped" in s for s in said)
    assert len(tables(sections[0])[0]) == 5


def test_only_the_sources_asked_for_have_a_screen(corpus: Corpus) -> None:
    sections = qc_sections(corpus, ["plain", "lost", "plain", "bad"])
    assert [part.title for part in sections] == [
        "All sources", "plain", "lost", "Refused sources",
    ]  # fmt: skip


def test_a_name_that_nobody_has_is_refused_with_the_nearest(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"no source 'plian'; did you mean 'plain'\?"):
        qc_sections(corpus, ["plian"])


def test_the_run_keeps_a_copy(corpus: Corpus, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    path = write_qc_report(corpus, tmp_path / "qc.html", [], tracker)
    assert tracker.files == [(path, "qc")]
    assert path.read_text().endswith("</html>\n")


def test_deleted_cells_are_told(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lake")
    bring(corpus, "first", kept=some_rows(1, 6))
    Corpus.open(corpus.uri).delete("barcode = 'first-2'")
    told = facts(section(qc_sections(Corpus.open(corpus.uri)), "first"))
    assert told["not in snapshot"] == "1 of the kept cells"
