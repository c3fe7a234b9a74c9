"""The quality report: what became of every source, on one page. Knows no file but the corpus.

All of it is read from a snapshot, so that it can be made again at any time, for any snapshot, with
the same bytes (a refusal that is put on record later, against the same snapshot, adds a row). A
source has one screen; its numbers come from `qc_numbers.py`, its figure from `qc_plots.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from ..corpus.log.history import CommittedSource
from ..corpus.store import Corpus
from ..platform.errors import CorpusError, did_you_mean
from ..platform.page import (
    Beside,
    Folded,
    Part,
    Plot,
    Prose,
    Section,
    Table,
    write_report,
)
from ..platform.tracking import Tracker
from .qc_numbers import (
    SourceAccount,
    SourceTallies,
    Tally,
    account_for,
    tally_doublet_scores,
    tally_sources,
)
from .qc_plots import source_figure, total_figure
from .rule_accounts import rules_of

MOST_SECTIONS = 60
"""So many sources get a screen of their own unless more are asked for: they are 11 MB of page and
22 s of a core (measured; of 200 sources)."""

_AT_ONCE = 8
"""Sources whose cells are counted by one query."""

_ONE_LINE = 150

_HOW_TO_READ = (
    "On each screen below: blue, cells kept, as they are in this snapshot; vermilion, cells "
    "dropped; dashed, thresholds, frozen for the whole source before its first cell was judged. "
    "Every cell that has the value is drawn; histograms have a log scale, so that a single one is "
    "seen."
)


def qc_sections(corpus: Corpus, sources: Sequence[str] | None = None) -> list[Section]:
    """The quality report's sections: all sources, then a screen a source, then the refused.

    Args:
        corpus: one snapshot.
        sources: names of the sources that get a screen, in that order; where None all do by name,
            or of many the `MOST_SECTIONS` with the largest share of dropped cells.

    Raises:
        CorpusError: the snapshot knows no source of a name.
    """
    accounts = account_for(corpus)
    refused = [source for source in corpus.state.sources if source.refused is not None]
    shown = _chosen(accounts, refused, sources)
    anchors = {account.source_id: f"source-{at}" for at, account in enumerate(shown, 1)}
    scores = tally_doublet_scores(corpus) if shown else {}
    sections = [_overview(accounts, refused, anchors, asked=sources is not None)]
    for begin in range(0, len(shown), _AT_ONCE):
        batch = shown[begin : begin + _AT_ONCE]
        tallies = tally_sources(corpus, [account.source_id for account in batch])
        for account in batch:
            name = account.source_id
            parts = _screen(account, tallies[name], scores.get(name))
            sections.append(Section(title=name, parts=parts, anchor=anchors[name]))
    if refused:
        sections.append(_refusals(accounts, refused))
    return sections


def write_qc_report(
    corpus: Corpus,
    path: Path,
    sources: Sequence[str] | None = None,
    tracker: Tracker | None = None,
) -> Path:
    """Write the quality report of a snapshot as one HTML page that stands alone.

    Args:
        corpus: the snapshot.
        path: the page; an older one is replaced, whole or not at all.
        sources: see `qc_sections`.
        tracker: the run that keeps a copy.

    Raises:
        CorpusError: the snapshot knows no source of a name.
        StorageError: the disk says no.
    """
    page = write_report(
        path,
        title=f"Quality of {corpus.folder.name}, snapshot {corpus.snapshot}",
        lead="What every source brought, what was dropped and why, from the receipts and cells of "
        "the snapshot itself.",
        sections=qc_sections(corpus, sources),
        footer=f"corpus {corpus.uuid}, snapshot {corpus.snapshot}",
        broad=True,
    )
    if tracker is not None:
        tracker.log_file(page, "qc")
    return page


def _chosen(
    accounts: Sequence[SourceAccount],
    refused: Sequence[CommittedSource],
    names: Sequence[str] | None,
) -> list[SourceAccount]:
    if names is None:
        first = sorted(accounts, key=lambda account: (-account.dropped_share, account.source_id))
        return sorted(first[:MOST_SECTIONS], key=lambda account: account.source_id)
    by_name = {account.source_id: account for account in accounts}
    known = [*by_name, *(source.receipt.source_id for source in refused)]
    for name in names:
        if name not in known:
            raise CorpusError(
                f"the snapshot has no source {name!r}{did_you_mean(name, known)}; the view "
                "`sources` lists them"
            )
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]


def _overview(
    accounts: Sequence[SourceAccount],
    refused: Sequence[CommittedSource],
    anchors: Mapping[str, str],
    *,
    asked: bool,
) -> Section:
    n_read = sum(account.receipt.n_read for account in accounts)
    n_kept = sum(account.receipt.n_kept for account in accounts)
    words = (
        f"{_counted(len(accounts), 'source')}, {n_read:,} cells read, {n_kept:,} kept"
        f"{_share(n_kept, n_read)}; {sum(a.n_living for a in accounts):,} are in this snapshot, "
        f"{sum(a.n_not_primary for a in accounts):,} of them the same as another cell and not "
        f"primary. {_counted(len({r.receipt.source_id for r in refused}), 'source')} refused."
    )
    parts: list[Part] = [Prose(text=words)]
    if accounts:
        alt = f"Funnel over all sources: {n_read:,} cells read, {n_kept:,} kept."
        plot = Plot(figure=total_figure(accounts), alt=alt, cropped=False)
        parts.append(plot.drawn())
    if anchors:
        parts.append(Prose(text=_HOW_TO_READ))
    if len(anchors) < len(accounts):
        which = (
            "those asked for"
            if asked
            else f"the {len(anchors)} that dropped the largest share of their cells"
        )
        parts.append(
            Prose(
                text=f"The table lists all {len(accounts):,} sources; {len(anchors)} have a screen "
                f"below: {which}. Any other: cytolake qc --source NAME.",
                tone="caution",
            )
        )
    rows = [*map(_account_row, accounts), *map(_refused_row, _latest(accounts, refused))]
    table = pa.Table.from_pylist(rows, schema=_ACCOUNT)
    caption = (
        "A link leads to the source's screen. Medians are of the cells in the snapshot. With an "
        "id: gene names that have an Ensembl id."
    )
    parts.append(Table(rows=table, caption=caption, most_rows=len(rows), links=anchors))
    return Section(title="All sources", parts=tuple(parts), anchor="all-sources")


_ACCOUNT = pa.schema(
    [
        ("source", pa.string()), ("status", pa.string()), ("read", pa.int64()),
        ("kept", pa.int64()), ("dropped, %", pa.float64()), ("in snapshot", pa.int64()),
        ("not primary", pa.int64()), ("gene names", pa.int64()), ("with an id, %", pa.float64()),
        ("panel", pa.string()), ("median counts", pa.float64()), ("median genes", pa.float64()),
        ("median mito, %", pa.float64()),
    ]
)  # fmt: skip


def _account_row(account: SourceAccount) -> dict[str, object]:
    receipt, medians = account.receipt, account.medians
    mito = medians.get("mito_fraction")
    return {
        "source": account.source_id,
        "status": "accepted",
        "read": receipt.n_read,
        "kept": receipt.n_kept,
        "dropped, %": 100 * account.dropped_share,
        "in snapshot": account.n_living,
        "not primary": account.n_not_primary,
        "gene names": receipt.genes.get("n_read"),
        "with an id, %": 100 * account.mapped_share,
        "panel": _panel(account),
        "median counts": medians.get("n_counts"),
        "median genes": medians.get("n_genes"),
        "median mito, %": None if mito is None else 100 * mito,
    }


def _refused_row(source: CommittedSource) -> dict[str, object]:
    return {"source": source.receipt.source_id, "status": "refused", "panel": ""}


def _latest(
    accounts: Sequence[SourceAccount], refused: Sequence[CommittedSource]
) -> list[CommittedSource]:
    """The last refusal of each name that no accepted source has."""
    accepted = {account.source_id for account in accounts}
    last = {source.receipt.source_id: source for source in refused}
    return [last[name] for name in sorted(last) if name not in accepted]


def _screen(
    account: SourceAccount, tallies: SourceTallies, scores: Tally | None
) -> tuple[Part, ...]:
    """One source: its account in words, its figure, its rules and its facts, its notes."""
    receipt = account.receipt
    words = (
        f"{_counted(receipt.n_read, 'cell')} read, {receipt.n_kept:,} kept"
        f"{_share(receipt.n_kept, receipt.n_read)}, {receipt.n_dropped:,} dropped; "
        f"{account.n_living:,} in this snapshot, {account.n_not_primary:,} of them not primary."
    )
    if panel := _panel(account):
        words += f" A panel (under half of the coding genes), {panel}."
    rules = pa.Table.from_pylist(
        rules_of(receipt),
        schema=pa.schema(
            [("rule", pa.string()), ("dropped", pa.int64()), ("keeps", pa.string()),
             ("skipped because", pa.string())]
        ),
    )  # fmt: skip
    facts = [*_file_facts(receipt.reader, account.source), *_duplicate_facts(account)]
    fact_table = pa.table(
        {"": [name for name, _ in facts], "from the receipt": [text for _, text in facts]}
    )
    figure = Plot(
        figure=source_figure(account, tallies, scores),
        alt=f"Quality control of {account.source_id}: {words} Histograms of total counts, detected "
        "genes and mitochondrial fraction with their thresholds, knee plot, scatter, gene names.",
        cropped=False,
    )
    parts: list[Part] = [
        Prose(text=words),
        figure.drawn(),  # at once: the figures of many sources would not fit into memory together
        Beside(parts=(Table(rows=rules), Table(rows=fact_table))),
    ]
    return (*parts, *_notes(receipt.warnings))


def _notes(notes: Sequence[str]) -> list[Part]:
    """What the reader should know: one short note as it is, more under a line that tells the first.

    A line, for a source has one screen.
    """
    if not notes:
        return []
    if len(notes) == 1 and len(notes[0]) <= _ONE_LINE:
        return [Prose(text=f"Note: {notes[0]}")]
    first = notes[0] if len(notes[0]) <= _ONE_LINE else notes[0][: _ONE_LINE - 3] + "..."
    inside = Prose(text="\n\n".join(notes), tone="caution")
    return [Folded(title=f"{_counted(len(notes), 'note')}: {first}", parts=(inside,))]


def _file_facts(reader: str, source: CommittedSource) -> list[tuple[str, str]]:
    receipt = source.receipt
    layer = f"{reader}, counts from {receipt.layer or 'the only matrix'}"
    if receipt.recover:
        layer += f", recovered by {receipt.recover}"
    return [
        ("file", f"{receipt.uri} ({receipt.n_bytes:,} bytes)"),
        ("sha256", receipt.sha256),
        ("read as", layer),
        ("committed", f"snapshot {source.snapshot}, in {_counted(len(receipt.units), 'unit')}"),
        ("versions", ", ".join(f"{name} {v}" for name, v in sorted(receipt.versions.items()))),
    ]


def _duplicate_facts(account: SourceAccount) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    told = (
        ("the same cells", account.linked, "in {}, which was there before"),
        ("the same cells", account.linked_by, "in {}, which came later"),
        ("equal counts", account.equal, "in {}"),
    )
    for name, found, words in told:
        if found:
            each = [f"{n:,} {words.format(other)}" for other, n in sorted(found.items())]
            lines.append((name, "; ".join(each)))
    if account.n_equal_within:
        lines.append(("equal counts", f"{account.n_equal_within:,} cells, to another of this file"))
    gone = account.receipt.n_kept - account.n_living
    if gone:
        withdrawn = (
            f", {account.n_withdrawn:,} of them at the commit" if account.n_withdrawn else ""
        )
        lines.append(("not in snapshot", f"{gone:,} of the kept cells{withdrawn}"))
    return lines or [("duplicates", "none found")]


def _refusals(accounts: Sequence[SourceAccount], refused: Sequence[CommittedSource]) -> Section:
    accepted = {account.source_id: account.source.snapshot for account in accounts}
    tries: dict[str, list[CommittedSource]] = {}
    for source in refused:
        tries.setdefault(source.receipt.source_id, []).append(source)
    rows = [
        {
            "source": name,
            "tries": len(tries[name]),
            "now": f"accepted, snapshot {accepted[name]}" if name in accepted else "refused",
            "file": tries[name][-1].receipt.uri,
            "why, the last time": tries[name][-1].refused,
        }
        for name in sorted(tries)
    ]
    table = Table(
        rows=pa.Table.from_pylist(rows),
        caption="Nothing of a refused source is in the corpus.",
        most_rows=len(rows),
    )
    return Section(title="Refused sources", parts=(table,), anchor="refused")


def _panel(account: SourceAccount) -> str:
    receipt = account.receipt
    if not receipt.panel:
        return ""
    return "used in medians" if receipt.panel_use else "not in medians"


def _share(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.3g} %)" if whole else ""


def _counted(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"
