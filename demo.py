"""The whole story on real cells: joins ingest, SQL, pretraining and evaluation under one run.

Knows no data set: a story file names sources, question and recipes (`ingest/demo/story.*.toml`).
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.rule import Rule

from .platform.configuration import Configuration, parse_toml
from .platform.errors import ResourceError
from .platform.resources import available
from .platform.screen import results, table
from .platform.settings import FILE_NAME, Settings
from .platform.storage import write_durably

if TYPE_CHECKING:
    import pyarrow as pa

    from .evaluate.job import EvaluationResult
    from .ingest.report import IngestReport
    from .ingest.sources_toml import SourcesFile
    from .platform.tracking import Tracker
    from .train.job import PretrainResult

SHELF = Path(__file__).parent / "ingest" / "demo"


class Question(Configuration):
    """What is asked of the corpus: in words, and in SQL."""

    asks: str
    sql: str


class Story(Configuration):
    """One form of the demo.

    Attributes:
        title: what the cells are.
        preference: of the stories whose resources are all at hand, the one with the highest.
        sources: the sources file beside the story.
        partition: a file that says how sources are cut from one labelled file, if they are.
        question: what SQL is asked.
        pretrain: the shipped recipe of pretraining.
        evaluate: shipped recipe of evaluation -> settings laid over it, in order.
    """

    title: str
    preference: int
    sources: str
    partition: str | None = None
    question: Question
    pretrain: str
    evaluate: dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the chapters gave, for the report and the last screen."""

    first: "IngestReport"
    second: "IngestReport"
    answer: "pa.Table"
    trained: "PretrainResult"
    answers: "tuple[EvaluationResult, ...]"


def choose_story(settings: Settings) -> Story:
    """The preferred story whose resources are all at hand.

    Raises:
        ResourceError: not even the plainest story's resources are to be had.
    """
    stories = [
        parse_toml(path.read_text(), Story, origin=path.name)
        for path in sorted(SHELF.glob("story.*.toml"))
    ]
    for story in sorted(stories, key=lambda story: -story.preference):
        if all(available(name, settings) is not None for name in _resources_of(story)):
            return story
    raise ResourceError(
        "no form of the demo has its data at hand: the plainest needs the package scanpy "
        "(`pip install 'cytolake[train]'`)"
    )


def run_demo(folder: Path, settings: Settings) -> None:
    """Tell the story in a folder: lake, runs, tracking database and report end up there.

    Args:
        folder: made where it is not there; a second telling goes on with what is there.
        settings: its resources and address are used; home, corpus and tracking are the folder's.
    """
    began = time.monotonic()
    screen = results()
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    here = settings.model_copy(
        update={"home": folder, "corpus": str(folder / "lake"), "tracking": None}
    )
    _write_settings(folder, here)
    story = choose_story(here)
    screen.print(Rule(f"cytolake demo: {story.title}", align="left"))

    from .platform.session import ray_session
    from .platform.tracking import open_run

    with ray_session(here.address):
        parent = open_run(here.tracking_uri, "demo", tags={"story": story.title})
        try:
            told = _tell(story, here, parent, screen)
            page = _report(story, told, folder)
        except BaseException:
            parent.finish("FAILED")
            raise
        parent.log_file(page)
        parent.finish()
    screen.print(Rule("Results", align="left"))
    for chapter, result in _results(told):
        screen.print(f"[bold]{chapter:<9}[/] {result}", highlight=False)
    screen.print(f"The whole story took {time.monotonic() - began:,.0f} s. Report: {page}")
    screen.print(f"All of it in MLflow: cd {folder} && cytolake ui", soft_wrap=True)


def _resources_of(story: Story) -> list[str]:
    """The resources that a story's sources are, or are cut from."""
    from .ingest.partition import load_partition
    from .ingest.sources_toml import load_sources

    entries = load_sources(SHELF / story.sources).source
    named = [name for entry in entries for name in (entry.resource, entry.metadata_resource)]
    if story.partition is not None:
        named.append(load_partition(SHELF / story.partition).resource)
    return [name for name in named if name is not None]


def _write_settings(folder: Path, settings: Settings) -> None:
    """Let commands that are typed in the demo's folder find its lake and its runs."""
    lines = ['home = "."', 'corpus = "lake"']
    if settings.resources:
        places = ", ".join(f'"{place}"' for place in settings.resources)
        lines.append(f"resources = [{places}]")
    write_durably(folder / FILE_NAME, "\n".join([*lines, ""]).encode())


def _tell(story: Story, settings: Settings, parent: "Tracker", screen: Console) -> "Told":
    """Each chapter, shown as it ends."""
    from .corpus.store import Corpus

    corpus_uri = str(settings.corpus)
    first, second = _ingest(story, settings, parent, screen)
    screen.print(Rule(f"SQL: {story.question.asks}", align="left"))
    answer = Corpus.open(corpus_uri).sql(story.question.sql)
    parent.log_text(story.question.sql, "question.sql")
    screen.print(table(answer.to_pylist(), answer.column_names))
    trained = _pretrain(story, settings, parent, screen)
    answers = _evaluate(story, settings, parent, trained, screen)
    return Told(first=first, second=second, answer=answer, trained=trained, answers=tuple(answers))


def _ingest(
    story: Story, settings: Settings, parent: "Tracker", screen: Console
) -> "tuple[IngestReport, IngestReport]":
    from .ingest.job import ingest
    from .ingest.summary import show_ingest
    from .platform.tracking import open_run

    screen.print(Rule("Ingest: files to cells", align="left"))
    plan = _plan(story, settings)
    run = open_run(settings.tracking_uri, "ingest", parent=parent.run_id)
    first = ingest(str(settings.corpus), plan, settings, tracker=run)
    run.finish("FAILED" if first.exit_status else "FINISHED")
    show_ingest(first, screen)
    second = ingest(str(settings.corpus), plan, settings)
    screen.print(f"The same command again: {second.n_added:,} cells added.")
    return first, second


def _plan(story: Story, settings: Settings) -> "SourcesFile":
    from .ingest.sources_toml import load_sources

    plan = load_sources(SHELF / story.sources)
    if story.partition is None:
        return plan
    from .corpus.genes import GeneReference
    from .ingest.partition import load_partition, partition
    from .ingest.survey import gene_table

    folder = settings.home / "sources"
    reference = GeneReference.load(gene_table(settings))
    partition(load_partition(SHELF / story.partition), folder, reference, settings)
    return plan.model_copy(update={"folder": folder})


def _pretrain(
    story: Story, settings: Settings, parent: "Tracker", screen: Console
) -> "PretrainResult":
    from .train.job import pretrain
    from .train.recipe import load_recipe

    recipe = load_recipe(story.pretrain)
    screen.print(Rule(f"Pretraining: {recipe.name}, a small Geneformer", align="left"))
    trained = pretrain(str(settings.corpus), recipe, settings, parent=parent.run_id)
    screen.print(trained.message, soft_wrap=True)
    screen.print(table([_speed(trained)]))
    return trained


def _evaluate(
    story: Story,
    settings: Settings,
    parent: "Tracker",
    trained: "PretrainResult",
    screen: Console,
) -> "list[EvaluationResult]":
    from .evaluate.job import evaluate
    from .evaluate.recipe import load_recipe

    answers: list[EvaluationResult] = []
    for name, overrides in story.evaluate.items():
        screen.print(Rule(f"Evaluation: {name}", align="left"))
        recipe = load_recipe(name, overrides=[*overrides, f"model={trained.run_folder}"])
        answer = evaluate(str(settings.corpus), recipe, settings, parent=parent.run_id)
        for shown in answer.shown():
            screen.print(shown)
        answers.append(answer)
    return answers


def _speed(trained: "PretrainResult") -> dict[str, object]:
    """A training in one row: loss from first to last, and the median speed."""
    from statistics import median

    first, last = trained.metrics[0], trained.metrics[-1]
    return {
        "steps": trained.step,
        "loss at first": first["loss"],
        "loss at last": last["loss"],
        "cells/s": median(report["cells_per_s"] for report in trained.metrics),
        "tokens/s": median(report["tokens_per_s"] for report in trained.metrics),
        "workers": len(trained.records),
        "engine": trained.records[0]["engine"],
    }


def _results(told: Told) -> list[tuple[str, str]]:
    """The story on one screen: chapter and result."""
    read = sum(source.receipt.n_read for source in told.first.sources if source.receipt)
    kept = sum(source.receipt.n_kept for source in told.first.sources if source.receipt)
    speed = _speed(told.trained)
    return [
        ("ingest", f"{read:,} cells read, {kept:,} kept, by quality rules that are on record"),
        ("sql", f"{told.answer.num_rows} rows answered from one snapshot"),
        (
            "pretrain",
            f"loss {speed['loss at first']:.2f} to {speed['loss at last']:.2f} in "
            f"{speed['steps']} steps, {speed['cells/s']:,.0f} cells/s, "
            f"{speed['tokens/s']:,.0f} tokens/s",
        ),
        *((answer.task, answer.verdict.replace("[", "\\[")) for answer in told.answers),
    ]


def _report(story: Story, told: Told, folder: Path) -> Path:
    """The story as one page."""
    from .ingest.summary import remarks_on, rules_table, sources_table
    from .platform.page import Plot, Prose, Section, Table, write_report
    from .train.curves import training_curves

    again = f"The same command again added {told.second.n_added:,} cells."
    remarks = "\n\n".join([*remarks_on(told.first), again])
    ingest = Section(
        title="Ingest: files to cells",
        parts=(
            Table(rows=sources_table(told.first), caption="Cells and genes by source."),
            Table(rows=rules_table(told.first), caption="What each quality rule did."),
            Prose(text=remarks, tone="caution"),
        ),
    )
    question = Section(
        title=f"SQL: {story.question.asks}",
        parts=(
            Prose(text=story.question.sql.strip(), tone="code"),
            Table(rows=told.answer, caption="Over all cells that measured the gene."),
        ),
    )
    curves = Plot(
        figure=training_curves(told.trained.metrics),
        caption="What the pretraining told while it ran.",
    )
    pretraining = Section(title="Pretraining", parts=(curves,))
    return write_report(
        folder / "report.html",
        title=f"cytolake demo: {story.title}",
        lead="Raw count files in, a pretrained and evaluated model out. A model of this size, "
        "trained for a minute, proves the road and nothing about the destination.",
        sections=[ingest, question, pretraining, *(answer.section() for answer in told.answers)],
        footer=f"pretraining run {told.trained.run_id}",
    )
