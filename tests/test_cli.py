"""The command line: help with examples, errors in a few lines, nothing heavy before it must."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cytolake.corpus.store import Corpus

VERBS = [
    ["demo"], ["inspect"], ["ingest"], ["why"], ["sql"], ["pretrain"], ["evaluate"], ["embed"],
    ["submit"], ["ui"], ["medians"], ["qc"],
    ["corpus", "show"], ["corpus", "log"], ["corpus", "diff"], ["corpus", "lineage"],
    ["corpus", "tag"], ["corpus", "tags"], ["corpus", "untag"], ["corpus", "annotate"],
    ["corpus", "delete"], ["corpus", "restore"], ["corpus", "compact"], ["corpus", "vacuum"],
    ["corpus", "verify"], ["corpus", "upgrade"],
    ["resources", "list"], ["resources", "fetch"],
    ["recipes", "list"], ["recipes", "show"], ["recipes", "copy"],
]  # fmt: skip

Run = Callable[..., tuple[int, str, str]]  # `run` of conftest.py


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_has_an_example(verb: list[str], run: Run) -> None:
    status, shown, _ = run(*verb, "--help")
    assert status == 0
    assert f"Example: cytolake {' '.join(verb)}" in " ".join(shown.split())


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; sys.argv = ['cytolake', '--help']\n"
        "from cytolake.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow', 'duckdb', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_corpus_that_is_none_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    status, shown, said = run("sql", "SELECT 1", "--corpus", tmp_path / "nothing")
    assert status == 1 and not shown
    assert said.startswith("error: ") and "Traceback" not in said and "nothing" in said


def test_no_corpus_at_all_says_where_to_name_one(run: Run) -> None:
    status, _, said = run("corpus", "log")
    assert status == 1 and "--corpus" in said and "cytolake.toml" in said


def test_debug_shows_where_an_error_came_from(run: Run) -> None:
    from cytolake.platform.errors import SettingsError

    with pytest.raises(SettingsError):
        run("corpus", "log", "--debug")


def test_settings_may_name_the_corpus(run: Run, fake_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "cytolake.toml").write_text(f'corpus = "{fake_corpus.uri}"\n')
    status, shown, _ = run("sql", "SELECT count(*) AS n FROM cells")
    assert status == 0 and "6" in shown


def test_a_pretraining_can_be_planned_without_starting_it(
    run: Run, fake_corpus: Corpus, tmp_path: Path
) -> None:
    from cytolake.train.recipe import load_recipe

    recipe = load_recipe("geneformer-tiny")
    chosen = fake_corpus.select(split=recipe.split, part=recipe.data.part)
    words = ["pretrain", "geneformer-tiny", "--plan", "--corpus", fake_corpus.uri]
    status, shown, _ = run(*words, "--set", "training.steps=7")
    assert status == 0
    assert "| steps " in shown and f"training.steps; {7 * chosen.n_cells} cell passes" in shown
    assert not (tmp_path / "home").exists()
    status, _, said = run("pretrain", "geneformer-tiny", "--plan")
    assert status == 1 and "give --corpus to plan it" in said


@pytest.mark.parametrize("format_name", ["csv", "json", "table"])
def test_an_answer_comes_in_the_format_asked_for(
    run: Run, fake_corpus: Corpus, format_name: str
) -> None:
    query = "SELECT barcode, n_counts FROM cells ORDER BY barcode LIMIT 2"
    words = ["sql", query, "--corpus", fake_corpus.uri, "--format", format_name]
    status, shown, _ = run(*words)
    assert status == 0 and "barcode" in shown
    if format_name == "json":
        assert len(json.loads(shown)) == 2


def test_an_answer_goes_to_a_file(run: Run, fake_corpus: Corpus, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    words = ["--corpus", fake_corpus.uri, "--format", "parquet", "--output", tmp_path / "a.parquet"]
    status, _, _ = run("sql", "SELECT * FROM cells", *words)
    assert status == 0
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 6


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("SELECT * FROM cels", id="an unknown view"),
        pytest.param("SELECT barcod FROM cells", id="an unknown column"),
        pytest.param("SELEC 1", id="a syntax error"),
        pytest.param("SELECT 1; SELECT 2", id="two statements"),
        pytest.param("COPY cells TO 'x.csv'", id="COPY"),
        pytest.param("ATTACH 'x.db'", id="ATTACH"),
        pytest.param("SET threads = 1", id="SET"),
        pytest.param("SELECT * FROM read_csv('/etc/passwd')", id="a file function"),
        pytest.param("SELECT * FROM '/etc/passwd'", id="a path as a table"),
    ],
)
def test_a_query_that_is_refused_says_so_in_a_few_lines(
    run: Run, fake_corpus: Corpus, query: str
) -> None:
    status, shown, said = run("sql", query, "--corpus", fake_corpus.uri)
    assert status == 1 and not shown
    assert said.startswith("error: ") and len(said.splitlines()) <= 6 and "Traceback" not in said


def test_a_recipe_is_shown_and_copied(run: Run, tmp_path: Path) -> None:
    status, shown, _ = run("recipes", "show", "geneformer-tiny")
    assert status == 0 and "[model]" in shown
    assert run("recipes", "copy", "geneformer-tiny", "mine.toml")[0] == 0
    assert (tmp_path / "mine.toml").read_text() == shown
    status, _, said = run("recipes", "copy", "geneformer-tiny", "mine.toml")
    assert status == 1 and "exists already" in said


def test_an_unknown_recipe_is_answered_with_the_nearest(run: Run) -> None:
    status, _, said = run("recipes", "show", "geneformer-tinny")
    assert status == 1 and "geneformer-tiny" in said


def test_submitting_without_a_cluster_says_what_is_missing(run: Run) -> None:
    status, _, said = run("submit", "--", "corpus", "log")
    assert status == 1 and "--address" in said
