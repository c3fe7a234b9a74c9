"""The findings: runs that go on, equal tokens, and words that follow the intervals."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cytolake.evaluate.contexts import DIFFERENCE, GAIN, SAME_BATCH, SAME_LABEL
from cytolake.evaluate.guessers import BASELINES, IN_ORDER, NEIGHBOURS
from cytolake.evaluate.scores import Score
from cytolake.evaluate.tasks.contexts import CHECKPOINT, UNTRAINED
from cytolake.evaluate.tasks.masked import CROSS_ENTROPY, SAVED, TOP_1, TOP_10
from cytolake.platform.configuration import flat, parse_values
from cytolake.platform.settings import Settings

from benchmarks.findings import SIZES, Answers, Plan, find_out, pretrain_recipe
from benchmarks.findings_data import SPLIT, TYPES_OF_PBMC3K
from benchmarks.findings_note import note, write_note
from benchmarks.findings_plot import curve_figure

from ..evaluate.conftest import corpus_of_cells, typed_cells

TINY = Plan(
    epochs=2,
    length=24,
    cells_per_step=16,
    n_cells=60,
    n_curve_cells=30,
    threads=1,
    sizes={"1 x 8": (1, 8), "2 x 16": (2, 16)},
    split={
        "kind": "query",
        "parts": {
            "pretraining": "donor_id IN ('d1', 'd2', 'd3')",
            "evaluation": "donor_id IN ('d4', 'd5')",
            "other_study": "donor_id = 'd6'",
        },
    },
    other="other_study",
    both="donor_id IN ('d4', 'd5', 'd6')",
)


def test_sizes_differ_in_nothing_but_their_shape():
    plan = Plan(epochs=2, sizes=SIZES, split=SPLIT)
    recipes = [flat(pretrain_recipe(plan, n, n_steps=100).model_dump()) for n in SIZES]
    differing = {key for key in recipes[0] if len({str(recipe[key]) for recipe in recipes}) > 1}
    shape = {f"model.{name}" for name in ("layers", "width", "heads", "feed_forward")}
    assert differing == {"name", *shape}


def test_an_answer_is_found_once_and_another_plan_is_refused(tmp_path: Path):
    found: list[int] = []
    for _ in range(2):
        answers = Answers(tmp_path / "answers.json", TINY)
        assert answers.get("x", lambda: found.append(1) or len(found)) == 1
    assert found == [1]
    with pytest.raises(SystemExit, match="give another folder"):
        Answers(tmp_path / "answers.json", replace(TINY, epochs=3))


def test_every_type_of_the_other_study_has_a_name_or_none():
    assert set(TYPES_OF_PBMC3K.values()) - {""} == {
        "CD4 T cells", "CD14+ Monocytes", "B cells", "CD8 T cells", "FCGR3A+ Monocytes",
        "NK cells", "Dendritic cells", "Megakaryocytes",
    }  # fmt: skip


@pytest.mark.slow
def test_the_same_seed_gives_the_same_findings_and_a_second_call_does_nothing(tmp_path: Path):
    cells = typed_cells(240, seed=1)
    corpus = corpus_of_cells(cells, tmp_path / "lake", sources=("one", "other"))
    found: list[dict[str, Any]] = []
    alone = find_out(str(corpus.folder), TINY, tmp_path / "one", Settings(home=tmp_path / "one"),
                     only="2 x 16")  # fmt: skip
    assert list(alone) == ["plan", "training/2 x 16"]
    for name in ("one", "two", "one"):
        settings = Settings(home=tmp_path / name)
        found.append(find_out(str(corpus.folder), TINY, tmp_path / name, settings))
    first, again, same = found
    assert first["training/2 x 16"] == alone["training/2 x 16"]
    assert same == first  # times and all: nothing was done again
    for key in first:
        if key.startswith(("curve", "masked", "contexts", "baselines")):
            assert again[key]["found"] == first[key]["found"]
    runs = [first[f"training/{name}"]["found"] for name in TINY.sizes]
    assert runs[0]["cells"] == runs[1]["cells"] == 240
    assert runs[0]["tokens"] == pytest.approx(runs[1]["tokens"])
    assert runs[0]["tokens"] == pytest.approx(2 * first["cells"]["found"]["learnt tokens"])
    for name in TINY.sizes:
        points = first[f"curve/{name}"]["found"]
        assert points[0][0] == 0.0 and points[-1][0] == pytest.approx(2.0)
    other, page = first["masked/other"]["found"], note(first, command="-")
    assert other["n_cells"] == 40 and {score["unit"] for score in other["scores"]} == {"cells"}
    assert other["n_positions"] != first["masked"]["found"]["n_positions"]
    for name in TINY.sizes:
        assert ", 2 of donor_id;" in first[f"contexts/{name}"]["found"]["notes"][0]
        assert ", 2 of source_id;" in first[f"contexts/studies/{name}"]["found"]["notes"][0]
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles[2:6] == [
        "## On held-out donors of the same study", "## On another study",
        "## Cell type or donor?", "## Cell type or study?",
    ]  # fmt: skip


def a_score(name: str, model: str, value: float, reach: float) -> dict[str, Any]:
    score = Score(
        name=name, model=model, value=value, low=value - reach, high=value + reach,
        unit="donors", n=5, method="jackknife",
    )  # fmt: skip
    return asdict(score)


def made_up(*, lead: float, gain: float) -> dict[str, Any]:
    """Answers of one size that leads every baseline by so many nats, each interval 0.1 wide."""
    names = [*BASELINES, "2 x 16"]
    contexts = [
        a_score(name, model, 0.3, 0.05)
        for model in (CHECKPOINT, UNTRAINED)
        for name in (SAME_LABEL, SAME_BATCH, DIFFERENCE)
    ]
    recipe = pretrain_recipe(TINY, "2 x 16", n_steps=10).model_dump(mode="json")
    found = {
        "machine": {"machine": "2 cores", "versions": {"torch": "2"}, "date": "2026-01-01"},
        "cells": {
            "learnt cells": 10, "learnt tokens": 1000, "learnt cells cut": 3, "held-out cells": 20,
            "vocabulary": 42, "parameters": {"2 x 16": 1234},
        },
        "baselines": {"k": 30, "kNN strength": 10.0, "rank strength": 100.0},
        "training/2 x 16": {
            "steps": 10, "cells": 160, "tokens": 2e6, "train_s": 60.0, "loss": 5.0,
            "whole": True, "recipe": recipe,
        },
        "curve/2 x 16": [[0.0, 7.0], [2.0, 5.0]],
        "curve/baselines": {name: 6.0 for name in BASELINES},
        "masked": {
            "scores": [
                a_score(s, n, 5, 0.1) for n in names for s in (CROSS_ENTROPY, TOP_1, TOP_10)
            ],
            "saved": {"2 x 16": [a_score(SAVED, name, lead, 0.05) for name in BASELINES]},
            "order": a_score(SAVED, NEIGHBOURS, 0.25, 0.05),
            "n_positions": 99, "n_cells": 20, "n_cut": 7,
        },
        "contexts/2 x 16": {
            "scores": [*contexts, a_score(GAIN, CHECKPOINT, gain, 0.05)],
            "bootstrap": [a_score(GAIN, CHECKPOINT, gain, 0.03)],
            "notes": ["20 cells"], "verdict": "",
        },
    }  # fmt: skip
    plan = json.loads(json.dumps(asdict(replace(TINY, sizes={"2 x 16": (2, 16)}))))
    return {"plan": plan} | {k: {"found": v, "s": 1.0, "cpu_s": 1.5} for k, v in found.items()}


@pytest.mark.parametrize(
    ("lead", "words"),
    [(0.4, "ahead of it by 0.400"), (-0.4, "behind it by 0.400"), (0.02, "not told apart")],
)
def test_the_words_about_guesses_follow_the_intervals(lead: float, words: str):
    text = note(made_up(lead=lead, gain=0.0), command="the command")
    short = " ".join(text[text.index("## In short") : text.index("## What was trained")].split())
    for name in (NEIGHBOURS, IN_ORDER):
        assert f"Against {name}, the largest model (2 x 16) is {words}" in short
    for name in BASELINES:
        assert f"| {name} | {lead:+.3f} [{lead - 0.05:+.3f}, {lead + 0.05:+.3f}] |" in text
    assert "`CYTOLAKE_RESOURCES=... the command`" in text
    assert "against the plain cell kNN it is\nahead of it by 0.250" in text


@pytest.mark.parametrize(
    ("gain", "words"),
    [(0.2, "more of the type"), (-0.2, "more of the batch"), (0.01, "not told apart from nothing")],
)
def test_the_words_about_states_follow_the_intervals(gain: float, words: str):
    text = note(made_up(lead=0.0, gain=gain), command="-")
    told = f"{gain:+.3f} [{gain - 0.05:+.3f}, {gain + 0.05:+.3f}], {words}"
    again = f"[{gain - 0.03:+.3f}, {gain + 0.03:+.3f}]"
    assert f"- 2 x 16: {told} (bootstrap: {again})" in text
    assert "95 % intervals over 5 donors; jackknife. 5\nare too few to resample" in text


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ((0.3, 0.2, 0.1), "The larger the model, the less."),
        ((0.1, 0.2, 0.3), "The larger the model, the more."),
        ((0.1, 0.3, 0.2), "In no order of size."),
    ],
)
def test_the_short_words_show_the_gain_of_every_size_and_its_order(
    gains: tuple[float, ...], words: str
):
    answers = made_up(lead=0.0, gain=0.0)
    sizes = [f"{number} x 16" for number in range(1, 4)]
    answers["plan"]["sizes"] = {size: [1, 16] for size in sizes}
    scores = answers["masked"]["found"]["scores"]
    at_all = next(score for score in scores if score["model"] == "2 x 16")
    answers["cells"]["found"]["parameters"] = dict.fromkeys(sizes, 1)
    for size, gain in zip(sizes, gains, strict=True):
        alike = made_up(lead=0.0, gain=gain)
        for key in ("training", "curve", "contexts"):
            answers[f"{key}/{size}"] = alike[f"{key}/2 x 16"]
        answers["masked"]["found"]["saved"][size] = alike["masked"]["found"]["saved"]["2 x 16"]
        scores += [{**at_all, "model": size, "name": n} for n in (CROSS_ENTROPY, TOP_1, TOP_10)]
    text = note(answers, command="-")
    short = " ".join(text[text.index("## In short") : text.index("## What was trained")].split())
    shown = [f"{size} {gain:+.3f} [" for size, gain in zip(sizes, gains, strict=True)]
    places = [short.index(part) for part in shown]
    assert places == sorted(places)
    assert short.endswith(words)


def test_the_limits_count_intervals_that_are_there_and_say_how_cells_are_cut():
    answers = made_up(lead=0.0, gain=0.1)
    text = " ".join(note(answers, command="-").split())
    assert "number: 23 of guesses, 7 of states." in text  # 6 guessers x 3, 5 paired; 2 x 3 and one
    assert "cut at its 24 most telling genes: 3 of these were." in text
    assert "7 of these cells are cut at 24 genes." in text
    answers["cells"]["found"] |= {"learnt cells cut": 10, "learnt tokens": 240}
    whole = " ".join(note(answers, command="-").split())
    assert "Every one of these cells is cut at its 24 most telling genes (240 = 10 x 24)." in whole


def test_a_difference_without_an_interval_says_so():
    answers = made_up(lead=0.0, gain=0.1)
    for score in answers["contexts/2 x 16"]["found"]["scores"]:
        score["low"] = score["high"] = math.nan
    answers["contexts/2 x 16"]["found"]["bootstrap"] = []
    text = note(answers, command="-")
    assert "- 2 x 16: +0.100; no interval" in text
    assert "No intervals: one side has one of the 5 donors only" in text


def test_a_training_that_was_gone_on_with_does_not_pass_for_a_whole_one():
    answers = made_up(lead=0.0, gain=0.0)
    assert "and more" not in note(answers, command="-")
    answers["training/2 x 16"]["found"]["whole"] = False
    assert "2 s and more" in note(answers, command="-")


def test_page_and_plot_are_written_and_small(tmp_path: Path):
    write_note(made_up(lead=0.1, gain=0.1), tmp_path, command="-")
    assert (tmp_path / "findings.md").read_text().startswith("# Findings")
    assert 5_000 < (tmp_path / "findings.png").stat().st_size < 150_000


def test_no_legend_of_the_plot_covers_a_line():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = curve_figure(made_up(lead=0.1, gain=0.1))
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None and legend.get_texts()
        shown = legend.get_window_extent()
        assert not shown.overlaps(axes.get_window_extent())
        assert shown.y0 >= 0 and shown.x1 <= figure.bbox.x1  # nor is it cut off


def test_the_split_keeps_donors_whole():
    from cytolake.corpus.splits import Split

    split = parse_values(SPLIT, Split, origin="test")
    assert split.kept_whole == "donor_id" and len(split.names) == 3
