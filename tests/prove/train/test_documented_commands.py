"""README.md, docs/first-hour.md, docs/pretraining.md: models are trained and asked as written."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from cytolake.platform.errors import ResourceError
from cytolake.platform.settings import load_settings
from cytolake.train.vocabularies import official_set

from ...docs.test_commands import ROOT, commands_of
from ...docs.test_first_hour import BLOCKS
from ..conftest import Command

SHORT = ("training.steps=2", "training.log_seconds=0", "training.cells_per_step=24")
"""Laid over what the pages train, and nothing else is changed: two steps are enough to be asked."""


@pytest.fixture
def lake(tmp_path: Path, command: Command) -> None:
    """The corpus of the first hour: 700 cells of unknown donors."""
    _, made = BLOCKS[0]
    exec(made.replace('"mine.h5ad"', repr(str(tmp_path / "mine.h5ad"))), {})
    words = shlex.split(next(block for _, block in BLOCKS if "cytolake ingest" in block))
    assert command(*words[1:], "--constant", "tissue=blood")[0] == 0


def shortened(line: str) -> list[str]:
    words = shlex.split(line)[1:]
    if words[0] == "pretrain" and "--plan" not in words:
        words += [word for setting in SHORT for word in ("--set", setting)]
    return words


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("lake")
def test_models_of_the_readme_and_the_first_hour_can_be_asked(command: Command):
    [trained] = commands_of("docs/first-hour.md", "pretrain")
    questions = [
        line
        for page in ("README.md", "docs/first-hour.md")
        for verb in ("evaluate", "embed")
        for line in commands_of(page, verb)
    ]
    assert len(questions) >= 4
    for line in dict.fromkeys([trained, *questions]):
        status, said = command(*shortened(line))
        assert status == 0, f"{line}\n{said[-3000:]}"


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("lake")
def test_every_command_of_the_page_on_pretraining_works(tmp_path: Path, command: Command):
    try:
        official_set("geneformer-v1", load_settings())
    except ResourceError:
        pytest.skip("the official vocabulary is not at hand")
    page = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
    assert command("recipes", "copy", "geneformer-tiny", "mine.toml")[0] == 0
    lines = [line.partition("  #")[0] for line in re.findall(r"^    (cytolake .*)$", page, re.M)]
    lines = [line for line in lines if "precision=bf16" not in line]  # that one wants a GPU
    assert len(lines) >= 7
    for line in lines:
        status, said = command(*shortened(line))
        assert status == 0, f"{line}\n{said[-3000:]}"
    [continued] = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.M | re.S)
    assert tomllib.loads(continued)["start"]["checkpoint"] == "geneformer-v1-10m"
    (tmp_path / "blood.toml").write_text(continued)
    status, said = command(*shortened("cytolake pretrain blood.toml --corpus lake"))
    assert status == 0, said[-3000:]
