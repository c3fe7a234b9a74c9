"""The verbs that train: medians of some cells, a pretraining, and what it would cost.

Knows words and screens; what a verb does is the rooms' matter. Imports nothing heavy before it
must. `cli.py` puts the verbs in their places.
"""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AddressOption,
    CorpusOption,
    SetOption,
    SnapshotOption,
    command_line,
    corpus_uri,
    open_corpus,
    with_address,
)
from .platform.screen import remarks, results
from .platform.settings import load_settings


def medians(
    output: Annotated[Path, typer.Option("--output", "-o", help="The set, as JSON.")],
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    where: Annotated[str | None, typer.Option(help="A condition over `cells`.")] = None,
    against: Annotated[
        str | None, typer.Option(help="geneformer-v1, geneformer-v2, or another set's file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Where to draw the comparison.")] = None,
) -> None:
    """Freeze the non-zero medians of some cells; a recipe's `vocabulary.medians` names the file."""
    from .corpus.frozen_medians import make_medians

    lake = open_corpus(corpus, snapshot)
    for shown in make_medians(lake, output, where, against, plot, settings=load_settings()):
        results().print(shown)


def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe's name.")],
    corpus: CorpusOption = None,
    snapshot: SnapshotOption = None,
    set: SetOption = None,  # noqa: A002 - the option's name
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what it would cost; nothing starts.")
    ] = False,
    address: AddressOption = None,
) -> None:
    """Pretrain a model on a corpus. The same command again goes on where a run was stopped."""
    from .train.recipe import load_recipe

    settings = with_address(load_settings(), address)
    if plan:
        from .train.planning import plan_cost

        opened = open_corpus(corpus, snapshot) if corpus or settings.corpus else None
        cost = plan_cost(load_recipe(recipe, overrides=set or ()), settings, opened)
        results().print(cost.table())
        for remark in cost.advice:
            remarks().print(remark, markup=False, soft_wrap=True)
        return
    from .train.job import pretrain as run

    result = run(
        corpus_uri(corpus, settings),
        load_recipe(recipe, overrides=set or ()),
        settings,
        snapshot=snapshot,
        command=command_line(),
    )
    results().print(result.message, markup=False, soft_wrap=True)
    raise typer.Exit(result.exit_status)
