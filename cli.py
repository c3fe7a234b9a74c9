"""The command line: joins the rooms, one verb a function. Imports nothing heavy before it must.

Knows no format, no model and no statistics: it parses words, calls a room, shows what came back.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .corpus_cli import corpus_app
from .options import (
    COMMAND,
    AddressOption,
    CorpusOption,
    SetOption,
    SnapshotOption,
    command_line,
    corpus_uri,
    open_corpus,
    plain,
    with_address,
)
from .platform.errors import CytolakeError, SettingsError
from .platform.screen import remarks, results, table
from .platform.settings import load_settings
from .training_cli import medians, pretrain

app = typer.Typer(
    name="cytolake",
    help="A data lake and training platform for single-cell foundation models.",
    epilog="Example: cytolake ingest cells.h5ad --corpus lake && cytolake sql "
    "'SELECT cell_type, count(*) FROM cells GROUP BY 1' --corpus lake",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
resources_app = typer.Typer(help="Files from elsewhere: list, fetch.", no_args_is_help=True)
recipes_app = typer.Typer(help="Shipped recipes: list, show, copy.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
app.add_typer(resources_app, name="resources")
app.add_typer(recipes_app, name="recipes")


def main() -> None:
    """Run the command line: our own errors in a few lines, exit status 1; `--debug` for more."""
    words = sys.argv[1:]
    own = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in own
    if debug:
        words.remove("--debug")
    try:
        app(args=words, prog_name="cytolake")
    except CytolakeError as error:
        if debug:
            raise
        remarks().print(f"[bold red]error[/]: {plain(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        remarks().print("stopped")
        sys.exit(130)


@app.command(epilog="Example: cytolake demo --folder my-demo")
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's lake and runs go.")] = Path(
        "cytolake-demo"
    ),
) -> None:
    """Tell the whole story on real cells: ingest, SQL, pretraining, evaluation, MLflow."""
    from .demo import run_demo

    run_demo(folder, load_settings())


@app.command(epilog="Example: cytolake inspect donor1.h5ad filtered_feature_bc_matrix/")
def inspect(files: Annotated[list[str], typer.Argument(help="Count files or folders.")]) -> None:
    """Say what is in a count file, and which sources.toml would ingest it. Needs no corpus."""
    from .ingest.inspect import inspect_source

    settings, failed = load_settings(), 0
    for file in files:
        try:
            results().print(inspect_source(file, settings).to_text(), markup=False)
        except CytolakeError as error:
            failed += 1
            remarks().print(f"[bold red]error[/]: {plain(str(error))}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command(
    epilog="Example: cytolake ingest donor1.h5ad --corpus lake --column cell_type=cluster_id "
    "--constant tissue=blood"
)
def ingest(
    sources: Annotated[
        list[str], typer.Argument(help="Count files, folders, patterns, URIs; or a sources.toml.")
    ],
    corpus: CorpusOption = None,
    reader: Annotated[
        str | None, typer.Option(help="h5ad, h5mu, zarr, loom, 10x_h5, 10x_mtx, visium or csv.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="The matrix of raw counts.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="cell_type=cluster_id: fill a column from obs.")
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option(help="tissue=blood: the same for every cell.")
    ] = None,
    recover: Annotated[str | None, typer.Option(help="log1p_cp10k: undo a log.")] = None,
    panel: Annotated[str | None, typer.Option(help="'use' lets a panel into medians.")] = None,
    replace: Annotated[
        str | None, typer.Option(help="A source whose file was corrected: old out, new in.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done; nothing is written.")
    ] = False,
    write_toml: Annotated[
        Path | None, typer.Option(help="With --plan: write a sources.toml to edit.")
    ] = None,
    address: AddressOption = None,
) -> None:
    """Bring cells into a corpus. A second time adds nothing; one bad source stops no other."""
    from .ingest.job import ingest as run
    from .ingest.sources_toml import plan_of
    from .ingest.summary import show_ingest, show_plan

    settings = load_settings()
    laid_over = {
        "reader": reader,
        "layer": layer,
        "columns": _pairs(column, "--column"),
        "constants": _pairs(constant, "--constant"),
        "recover": recover,
        "panel": panel,
    }
    given = plan_of(sources, {name: value for name, value in laid_over.items() if value})
    if plan or write_toml:
        raise typer.Exit(show_plan(given, settings, write_toml, results()))
    settings = with_address(settings, address)
    report = run(corpus_uri(corpus, settings), given, settings, replace=replace)
    show_ingest(report, results())
    if report.exit_status:
        raise typer.Exit(report.exit_status)


@app.command(epilog="Example: cytolake qc --corpus lake --source donor1 --output qc.html")
def qc(
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, as HTML.")],
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Of this source; repeatable. All where left out.")
    ] = None,
) -> None:
    """Draw what quality control did: funnels, histograms with thresholds, genes, duplicates."""
    from .ingest.qc_report import write_qc_report

    page = write_qc_report(open_corpus(corpus, snapshot), output, source or None)
    results().print(f"written: {page}", markup=False)


@app.command(epilog="Example: cytolake why AAACATACAACCAC-1 --corpus lake")
def why(barcode: str, corpus: CorpusOption = None) -> None:
    """Tell why a cell was kept or dropped: each quality value beside its threshold."""
    from .corpus.report.summary import show_why

    show_why(open_corpus(corpus).why(barcode), results())


@app.command(
    epilog="Example: cytolake sql 'SELECT cell_type, count(*) AS n FROM cells GROUP BY 1' "
    "--corpus lake --format csv --output types.csv"
)
def sql(
    query: Annotated[
        str | None,
        typer.Argument(help="One SELECT over the corpus's views; a shell where left out."),
    ] = None,
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    format: Annotated[str, typer.Option(help="table, csv, json or parquet.")] = "table",  # noqa: A002 - the option's name
    output: Annotated[Path | None, typer.Option(help="A file instead of the screen.")] = None,
) -> None:
    """Answer a question from the corpus. Views: cells, genes, sources, expression, measured, ..."""
    from .corpus.query.answers import hand_over

    opened = open_corpus(corpus, snapshot)
    if query is not None:
        hand_over(opened.sql(query), format, output)
        return
    from .corpus.query.shell import shell_of

    if output is not None:
        raise SettingsError("--output goes with a query; a shell's answers go to the screen")
    status = shell_of(opened, form=format, home=load_settings().home).run()
    if status:
        raise typer.Exit(status)


app.command(
    epilog="Example: cytolake medians --corpus lake --where \"tissue = 'blood'\" "
    "--output blood-medians.json --against geneformer-v1 --plot blood-medians.png"
)(medians)
app.command(epilog="Example: cytolake pretrain geneformer-v1-10m --corpus lake --plan")(pretrain)


@app.command(epilog="Example: cytolake evaluate finetune --corpus lake --set model=my-run")
def evaluate(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, or finetune, perturb, masked, contexts.")
    ],
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    set: SetOption = None,  # noqa: A002 - the option's name
    address: AddressOption = None,
) -> None:
    """Ask a trained model a question; answers are scores with intervals, and go to MLflow."""
    from .evaluate.job import evaluate as run
    from .evaluate.recipe import load_recipe

    settings = with_address(load_settings(), address)
    result = run(
        corpus_uri(corpus, settings),
        load_recipe(recipe, overrides=set or ()),
        settings,
        snapshot=snapshot,
    )
    for shown in result.shown():
        results().print(shown)


@app.command(epilog="Example: cytolake embed mine.h5ad --model my-run -o mine-embedded.h5ad")
def embed(
    file: Annotated[Path, typer.Argument(help="An h5ad with raw counts.")],
    model: Annotated[str, typer.Option(help="A checkpoint folder, or a run's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The h5ad to write.")],
    allow_low_coverage: Annotated[
        bool, typer.Option(help="Go on when under half of the counts fall on known genes.")
    ] = False,
) -> None:
    """Write cell states into `obsm` of a copy of a file. Needs no corpus."""
    from .embedding import embed_file

    coverage = embed_file(
        file, model, output, load_settings(), allow_low_coverage=allow_low_coverage
    )
    results().print(coverage, markup=False)


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: cytolake submit --address http://127.0.0.1:8265 -- pretrain geneformer-tiny",
)
def submit(
    verb: Annotated[list[str], typer.Argument(help="After `--`: a verb and its arguments.")],
    address: AddressOption = None,
    wait: Annotated[bool, typer.Option(help="Follow the job's log until it ends.")] = True,
) -> None:
    """Run a verb as a job of a Ray cluster (`ray job submit` underneath)."""
    from .platform.job import submit as run

    settings = load_settings()
    server = address or settings.address
    if not server:
        raise SettingsError("submit needs a cluster: give --address http://HOST:8265")

    def follow(text: str) -> None:
        results().print(text, end="", markup=False, soft_wrap=True)

    n_verb_words = 2 if verb[0] in {"corpus", "resources", "recipes"} else 1
    job, status = run(
        verb,
        settings,
        address=server,
        n_verb_words=n_verb_words,
        follow=follow if wait else None,
        variables={COMMAND: command_line()},
    )
    remarks().print(f"{job}: {status}")
    if status in ("FAILED", "STOPPED"):
        raise typer.Exit(1)


@resources_app.command("list", epilog="Example: cytolake resources list")
def resources_list() -> None:
    """Every resource: what it is, its licence, and where it lies if it is at hand."""
    from .platform.resources import available, catalogue

    settings = load_settings()
    rows = [
        {
            "name": name,
            "kind": entry.kind,
            "about": entry.about,
            "licence": entry.licence,
            "place": str(available(name, settings) or "not at hand"),
        }
        for name, entry in catalogue().items()
    ]
    results().print(table(rows))


@resources_app.command("fetch", epilog="Example: cytolake resources fetch genes-human")
def resources_fetch(names: list[str]) -> None:
    """Fetch resources, check their checksums, and say where they are."""
    from .platform.resources import find

    settings = load_settings()
    for name in names:
        results().print(f"{name}: {find(name, settings)}", soft_wrap=True)


@recipes_app.command("list", epilog="Example: cytolake recipes list")
def recipes_list() -> None:
    """The shipped recipes, and the verb that runs each."""
    from .platform.recipes import shipped

    rows = [{"recipe": r.name, "verb": r.verb, "about": r.about} for r in shipped().values()]
    results().print(table(rows))


@recipes_app.command("show", epilog="Example: cytolake recipes show geneformer-tiny")
def recipes_show(name: str) -> None:
    """Print a shipped recipe."""
    from .platform.recipes import find_recipe

    results().print(find_recipe(name).read_text(), markup=False, end="", soft_wrap=True)


@recipes_app.command("copy", epilog="Example: cytolake recipes copy geneformer-tiny mine.toml")
def recipes_copy(name: str, to: Path) -> None:
    """Copy a shipped recipe to a file of your own, to change it."""
    from .platform.recipes import find_recipe

    if to.exists():
        raise SettingsError(f"{to} exists already; give another name")
    to.write_text(find_recipe(name).read_text())
    results().print(f"{to}: a copy of the recipe {name}", soft_wrap=True)


@app.command(epilog="Example: cytolake ui --port 5001")
def ui(port: Annotated[int, typer.Option(help="The port on this machine.")] = 5000) -> None:
    """Open MLflow's pages over all runs, on this machine alone (127.0.0.1)."""
    import subprocess

    from .platform.session import be_quiet

    be_quiet()
    settings = load_settings()
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    remarks().print(f"http://127.0.0.1:{port} shows {settings.tracking_uri}; stop with Ctrl-C")
    raise typer.Exit(subprocess.call([*command, "--backend-store-uri", settings.tracking_uri]))


def _pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals:
            raise SettingsError(f"{option} {word}: expected NAME=VALUE")
        pairs[key] = value
    return pairs
