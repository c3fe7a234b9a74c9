"""The verbs of `cytolake corpus`: look at a corpus, name, change and mend it.

Knows words and screens; what a verb does is the corpus's matter. Imports nothing heavy before it
must. A verb that changes something says what it did, and how to undo it where that can be.
"""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    AddressOption,
    CorpusOption,
    SnapshotOption,
    corpus_uri,
    open_corpus,
    plain,
    with_address,
)
from .platform.errors import SettingsError
from .platform.screen import remarks, results, table
from .platform.settings import load_settings

if TYPE_CHECKING:
    from .corpus.store import Corpus

corpus_app = typer.Typer(
    help="A corpus: look at it, name snapshots, change and mend it.", no_args_is_help=True
)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@corpus_app.command("show", epilog="Example: cytolake corpus show --corpus lake")
def show(corpus: CorpusOption = None, snapshot: SnapshotOption = None) -> None:
    """Cells by source, tissue, assay and cell type; bytes by part; what quality control did."""
    from .corpus.report.summary import show_corpus

    show_corpus(open_corpus(corpus, snapshot).show(), results())


@corpus_app.command("log", epilog="Example: cytolake corpus log --corpus lake")
def log(corpus: CorpusOption = None) -> None:
    """The commits, newest first: who, when, what, how many cells; tags; what has ended."""
    from .corpus.report.summary import show_log

    show_log(open_corpus(corpus).log(), results())


@corpus_app.command("diff", epilog="Example: cytolake corpus diff 3 5 --corpus lake")
def diff(
    before: Annotated[str, typer.Argument(help="A snapshot's number or tag.")],
    after: Annotated[str, typer.Argument(help="Another's.")],
    corpus: CorpusOption = None,
) -> None:
    """What differs between two snapshots: cells, values, sources, segments."""
    from .corpus.report.summary import show_difference

    show_difference(open_corpus(corpus).compare(before, after), results())


@corpus_app.command("lineage", epilog="Example: cytolake corpus lineage source:donor1")
def lineage(
    what: Annotated[
        str,
        typer.Argument(
            help="A cell_id, barcode, source, snapshot or tag; `source:` and the like before it "
            "say which."
        ),
    ],
    corpus: CorpusOption = None,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",  # noqa: A002 - the option's name
) -> None:
    """Where a cell, source or snapshot comes from, what was done to it, and who read it."""
    from .corpus.report.summary import show_lineage

    if format not in ("table", "json"):
        raise SettingsError(f"--format {format}: expected table or json")
    found = open_corpus(corpus).lineage(what)
    if format == "json":
        import json

        results().print(json.dumps(found, indent=1), markup=False, soft_wrap=True)
    else:
        show_lineage(found, results())


@corpus_app.command("tag", epilog="Example: cytolake corpus tag figure-2 7 --corpus lake")
def tag(
    name: Annotated[str, typer.Argument(help="The name.")],
    snapshot: Annotated[str | None, typer.Argument(help="The newest where left out.")] = None,
    corpus: CorpusOption = None,
) -> None:
    """Name a snapshot, so that no vacuum ends it."""
    made = open_corpus(corpus).tag(name, snapshot)
    results().print(f"{made.name} is snapshot {made.snapshot}", markup=False)


@corpus_app.command("tags", epilog="Example: cytolake corpus tags --corpus lake")
def tags(corpus: CorpusOption = None) -> None:
    """The tags: which snapshot, since when, by whom."""
    from .corpus.report.summary import show_tags

    show_tags(open_corpus(corpus).tags().values(), results())


@corpus_app.command("untag", epilog="Example: cytolake corpus untag figure-2 --corpus lake")
def untag(name: str, corpus: CorpusOption = None) -> None:
    """Remove a tag; a vacuum may then end its snapshot."""
    opened = open_corpus(corpus)
    held = opened.tags().get(name)
    opened.untag(name)
    undo = f"; undo by `cytolake corpus tag {name} {held.snapshot}`" if held else ""
    results().print(f"{name} is no tag any more{undo}", markup=False)


@corpus_app.command(
    "export",
    epilog="Example: cytolake corpus export blood.h5ad --where \"tissue = 'blood'\" --corpus lake",
)
def export(
    out: Annotated[Path, typer.Argument(help="The file or folder to make.")],
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    where: Annotated[
        str | None, typer.Option(help="A condition over `cells`; all cells where left out.")
    ] = None,
    genes: Annotated[
        list[str] | None,
        typer.Option(help="Symbols or Ensembl ids, with commas; repeatable. All where left out."),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(
            help="h5ad, zarr, parquet (a folder) or tokens (a data set of Hugging Face); told by "
            "OUT's ending where left out, `.dataset` for tokens."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Of tokens: geneformer-v2 (if left out), geneformer-v1, or a recipe."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="Of tokens: columns of `cells` beside them; cell_id,cell_type if none."),
    ] = None,
) -> None:
    """Write cells to a file of your own, in blocks, whole or not at all; it goes on record."""
    from .exporting import export_cells

    told = export_cells(
        open_corpus(corpus, snapshot),
        out,
        load_settings(),
        form=format,
        where=where,
        genes=_words(genes),
        recipe=recipe,
        columns=_words(columns),
    )
    results().print(told, markup=False, soft_wrap=True)


@corpus_app.command(
    "annotate", epilog="Example: cytolake corpus annotate types.csv --corpus lake --dry-run"
)
def annotate(
    file: Annotated[
        Path | None,
        typer.Argument(help="csv, tsv or parquet with cell_id, or source_id and barcode."),
    ] = None,
    sql: Annotated[str | None, typer.Option(help="A SELECT that gives such a table.")] = None,
    corpus: CorpusOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Fill columns of cells from a table; no array is written anew."""
    if (file is None) == (sql is None):
        raise SettingsError("annotate needs either a FILE or --sql QUERY")
    opened = open_corpus(corpus)
    if sql is not None:
        done = opened.annotate(opened.sql(sql), origin="sql", dry_run=dry_run)
    else:
        done = opened.annotate(file or "", dry_run=dry_run)
    results().print(
        f"{done.n_changed:,} of {done.n_cells:,} cells {'would change' if dry_run else 'changed'} "
        f"in {', '.join(done.columns)}",
        markup=False,
    )
    if done.n_unknown:
        remarks().print(f"{done.n_unknown:,} rows name no living cell")
    _say_outcome(done.snapshot, dry_run=dry_run)


@corpus_app.command(
    "delete",
    epilog="Example: cytolake corpus delete --where \"donor_id = 'D7'\" --withdraw 'consent ended'",
)
def delete(
    where: Annotated[str, typer.Option(help="A condition over `cells`.")],
    corpus: CorpusOption = None,
    withdraw: Annotated[
        str | None,
        typer.Option(help="The reason: the cells go for ever, out of older snapshots too."),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Take cells out of the corpus; older snapshots keep them, unless they are withdrawn."""
    opened = open_corpus(corpus)
    if withdraw is None:
        planned = opened.delete(where, dry_run=True)
    else:
        planned = opened.withdraw(where, withdraw, dry_run=True)
    n_living = opened.sql("SELECT count(*) AS n FROM cells").to_pylist()[0]["n"]
    if dry_run:
        _show_chosen(opened, where)
    elif 2 * planned.n_cells > n_living and not yes:
        _ask(f"this takes out {planned.n_cells:,} of {n_living:,} cells")
    if withdraw is None:
        done = planned if dry_run else opened.delete(where)
    else:
        done = planned if dry_run else opened.withdraw(where, withdraw)
        older = done.n_tombstones - done.n_cells
        if older:
            results().print(f"{older:,} cells of older snapshots alone are withdrawn besides")
    verb = "would go" if dry_run else "are gone"
    results().print(f"{done.n_cells:,} of {n_living:,} cells {verb}")
    if done.n_equal_elsewhere:
        remarks().print(
            f"{done.n_equal_elsewhere:,} cells with the very same counts were not chosen and stay"
        )
    _say_outcome(done.snapshot, dry_run=dry_run, undo=withdraw is None)
    if withdraw is not None and done.snapshot is not None:
        results().print(
            "older snapshots that hold them are refused from now on; `cytolake corpus vacuum "
            "--for-consent` takes them off the disk, and says who has read them",
            soft_wrap=True,
        )


@corpus_app.command("restore", epilog="Example: cytolake corpus restore 7 --corpus lake")
def restore(
    snapshot: Annotated[str, typer.Argument(help="A snapshot's number or tag.")],
    corpus: CorpusOption = None,
) -> None:
    """Make an earlier snapshot's cells the newest again, by a new commit."""
    opened = open_corpus(corpus)
    done = opened.restore(snapshot)
    results().print(f"{done.n_cells:,} cells, as in snapshot {snapshot}", markup=False)
    if done.n_withdrawn:
        results().print(f"{done.n_withdrawn:,} cells of it were withdrawn since and stay out")
    _say_outcome(done.snapshot)


@corpus_app.command("compact", epilog="Example: cytolake corpus compact --corpus lake")
def compact(corpus: CorpusOption = None, address: AddressOption = None) -> None:
    """Bring many small segments together to few large ones; cells keep their ids."""
    from .corpus.upkeep.job import compact as run

    settings = with_address(load_settings(), address)
    done = run(corpus_uri(corpus, settings), settings)
    results().print(f"{done.n_before:,} segments into {done.n_after:,}: {done.n_cells:,} cells")
    _say_outcome(done.snapshot, undo=False)


@corpus_app.command("vacuum", epilog="Example: cytolake corpus vacuum --plan --corpus lake")
def vacuum(
    corpus: CorpusOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be done.")] = False,
    older_than: Annotated[
        str, typer.Option(help="Snapshots that were the newest since then stay: 90m, 24h, 7d.")
    ] = "24h",
    for_consent: Annotated[
        bool,
        typer.Option(
            "--for-consent",
            help="End whatever can reach withdrawn cells, tags and runs too; name who read them.",
        ),
    ] = False,
) -> None:
    """End snapshots that nobody named, write segments anew without dead cells, free the disk."""
    from .corpus.report.summary import show_vacuumed

    done = open_corpus(corpus).vacuum(
        older_than_ms=_milliseconds(older_than), for_consent=for_consent, dry_run=plan
    )
    show_vacuumed(done, results())


@corpus_app.command("verify", epilog="Example: cytolake corpus verify --deep --corpus lake")
def verify(
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte; hold all counts and rows to account.")
    ] = False,
) -> None:
    """Check that every committed file is there and has its size; exit status 1 on damage."""
    from .corpus.report.soundness import n_bytes, unknown_files
    from .platform.progress import progress

    opened = open_corpus(corpus, snapshot)
    if deep:
        megabytes = n_bytes(opened) / 1e6
        with progress("verifying", megabytes, "MB") as bar:
            problems = opened.verify(deep=True, advance=lambda done: bar.advance(done / 1e6))
        if strangers := unknown_files(opened):
            remarks().print(
                f"{len(strangers)} files or segments are named by no commit (no damage: they are "
                f"staged, or left over, and `cytolake corpus vacuum` takes them), such as "
                f"{plain(str(strangers[0]))}",
                soft_wrap=True,
            )
    else:
        problems = opened.verify()
    for problem in problems:
        remarks().print(f"[bold red]damage[/]: {plain(problem)}", soft_wrap=True)
    if problems:
        raise typer.Exit(1)
    found = "every byte is as it was written" if deep else "every file is there, sizes agree"
    results().print(
        f"{opened.uri} snapshot {opened.snapshot}: {found}", markup=False, soft_wrap=True
    )


@corpus_app.command("upgrade", epilog="Example: cytolake corpus upgrade --corpus lake")
def upgrade(corpus: CorpusOption = None) -> None:
    """Bring a corpus of an older format to this one: every cell, id and snapshot is kept."""
    from .corpus.change.upgrade import upgrade as run
    from .platform.places import place_of
    from .platform.progress import progress

    uri = corpus_uri(corpus, load_settings())
    with progress("upgrading", None, "commits") as bar:
        done = run(place_of(uri), bar.advance)
    if done is None:
        results().print(f"{uri} has the newest format already", markup=False, soft_wrap=True)
        return
    results().print(
        f"{uri}: format {done.before} is now {done.now}; {done.n_snapshots} snapshots, "
        f"{done.n_segments} segments. `cytolake corpus verify --deep` reads every byte of it",
        markup=False,
        soft_wrap=True,
    )


def _show_chosen(opened: "Corpus", where: str) -> None:
    """The cells that a condition chooses, by source and cell type."""
    rows = opened.sql(
        "SELECT source_id, cell_type, count(*) AS n_cells FROM cells WHERE (\n"
        f"{where}\n) GROUP BY ALL ORDER BY source_id, n_cells DESC, cell_type"
    ).to_pylist()
    results().print(table(rows, ("source_id", "cell_type", "n_cells")))


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise SettingsError(f"{what}, more than half: say --yes if that is meant")
    typer.confirm(f"{what}: go on?", abort=True, err=True)


def _say_outcome(snapshot: int | None, *, dry_run: bool = False, undo: bool = True) -> None:
    if snapshot is not None:
        how = f"; undo by `cytolake corpus restore {snapshot - 1}`" if undo else ""
        results().print(f"snapshot {snapshot}{how}", markup=False)
    elif not dry_run:
        results().print("nothing to do: it is so already")


def _words(given: list[str] | None) -> list[str] | None:
    """Words with commas between them, from all times that an option was given."""
    words = [word.strip() for text in given or () for word in text.split(",")]
    return [word for word in words if word] or None


def _milliseconds(text: str) -> int:
    """A length of time: 90m, 24h, 7d, 0s."""
    found = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if found is None:
        raise SettingsError(f"--older-than {text}: expected a number and s, m, h or d, such as 24h")
    return int(found[1]) * _UNITS_MS[found[2]]
