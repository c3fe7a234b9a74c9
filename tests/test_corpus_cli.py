"""The verbs of `cytolake corpus`, as a user types them: what is said, and what is done."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from cytolake.corpus.store import Corpus

Run = Callable[..., tuple[int, str, str]]  # `run` of conftest.py


@pytest.fixture
def corpus(build_fake_corpus: Callable[[Path], Corpus], tmp_path: Path) -> Corpus:
    return build_fake_corpus(tmp_path / "corpus")


@pytest.fixture
def ask(run: Run, corpus: Corpus) -> Run:
    """`cytolake corpus WORDS --corpus ...`"""
    return lambda *words: run("corpus", *words, "--corpus", corpus.uri)


def n_cells(corpus: Corpus, snapshot: int | str | None = None) -> int:
    opened = Corpus.open(corpus.uri, snapshot)
    return opened.sql("SELECT count(*) AS n FROM cells").to_pylist()[0]["n"]


def test_show_log_and_verify_tell_of_the_corpus(ask: Run) -> None:
    for verb in ("show", "log", "verify"):
        status, shown, _ = ask(verb)
        assert status == 0 and shown.strip(), verb


def test_the_log_says_who_when_what_and_which_tags(ask: Run, corpus: Corpus) -> None:
    ask("tag", "first", 1)
    ask("delete", "--where", "donor_id = 'd4'")
    _, shown, _ = ask("log")
    assert "added blood" in shown and "first" in shown and "@" in shown
    assert "donor_id = ?" in shown and "d4" not in shown


def test_a_damaged_corpus_is_named_file_by_file(ask: Run, corpus: Corpus) -> None:
    victim = next(Path(corpus.uri).glob("segments/*/expression/*.parquet"))
    data = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert ask("verify")[0] == 0  # sizes agree
    status, _, said = ask("verify", "--deep")
    assert status == 1 and victim.name in said
    victim.unlink()
    status, _, said = ask("verify")
    assert status == 1 and victim.name in said


def test_verify_deep_speaks_of_strangers_apart_from_damage(ask: Run, corpus: Corpus) -> None:
    (corpus.segments_folder / "staged-0").mkdir()
    status, shown, said = ask("verify", "--deep")
    assert status == 0 and "every byte" in shown and "staged-0" in said and "no damage" in said


def test_a_tag_opens_its_snapshot_everywhere(run: Run, ask: Run, corpus: Corpus) -> None:
    assert ask("tag", "first", "1")[0] == 0
    query = "SELECT count(*) AS n FROM cells"
    _, shown, _ = run("sql", query, "--corpus", corpus.uri, "--snapshot", "first")
    assert "3" in shown
    assert ask("tags")[1].count("first") == 1
    status, _, said = run("sql", query, "--corpus", corpus.uri, "--snapshot", "frist")
    assert status == 1 and "did you mean 'first'" in said
    status, shown, _ = ask("untag", "first")
    assert status == 0 and "corpus tag first 1" in shown and "first" not in ask("tags")[1]


def test_a_dry_run_shows_what_would_go_and_changes_nothing(ask: Run, corpus: Corpus) -> None:
    status, shown, _ = ask("delete", "--where", "tissue = 'blood'", "--dry-run")
    assert status == 0 and "T cell" in shown and "B cell" in shown and "3 of 6" in shown
    assert n_cells(corpus) == 6 and Corpus.open(corpus.uri).snapshot == 2


def test_a_deletion_says_how_to_undo_it(ask: Run, corpus: Corpus) -> None:
    status, shown, _ = ask("delete", "--where", "donor_id = 'd4'")
    assert status == 0 and "1 of 6" in shown and "corpus restore 2" in shown
    assert n_cells(corpus) == 5
    status, shown, _ = ask("restore", 2)
    assert status == 0 and "6 cells" in shown and n_cells(corpus) == 6
    assert "nothing to do" in ask("restore", 2)[1]


def test_more_than_half_asks_for_a_yes(ask: Run, corpus: Corpus) -> None:
    status, _, said = ask("delete", "--where", "n_counts > 4")
    assert status == 1 and "--yes" in said and n_cells(corpus) == 6
    assert ask("delete", "--where", "n_counts > 4", "--yes")[0] == 0
    assert n_cells(corpus) == 1


def test_a_withdrawal_names_what_comes_next_and_no_undo(ask: Run, corpus: Corpus) -> None:
    ask("tag", "paper", 2)
    status, shown, _ = ask("delete", "--where", "donor_id = 'd4'", "--withdraw", "consent ended")
    assert status == 0 and "--for-consent" in shown and "corpus restore" not in shown
    status, _, said = ask("show", "--snapshot", "paper")
    assert status == 1 and "withdrawn" in said and "consent ended" in said
    status, shown, _ = ask("vacuum", "--for-consent", "--plan")
    assert status == 0 and "would do" in shown and "paper" in shown
    status, shown, _ = ask("vacuum", "--for-consent", "--older-than", "0s")
    assert status == 0 and "paper" in shown


def test_annotations_come_from_a_file_or_a_query(ask: Run, corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "types.csv"
    file.write_text("source_id,barcode,cell_type\nblood,AAA,NK\nblood,XXX,NK\n")
    status, shown, said = ask("annotate", file, "--dry-run")
    assert status == 0 and "would change" in shown and "1 rows name no living cell" in said
    assert ask("annotate", file)[0] == 0
    query = "SELECT cell_id, 'adult' AS stage FROM cells WHERE tissue = 'lung'"
    assert ask("annotate", "--sql", query)[0] == 0
    rows = Corpus.open(corpus.uri).sql("SELECT cell_type, stage FROM cells").to_pylist()
    assert sorted(str(row["stage"]) for row in rows) == ["None"] * 3 + ["adult"] * 3
    assert "NK" in [row["cell_type"] for row in rows]
    status, _, said = ask("annotate")
    assert status == 1 and "--sql" in said


def test_a_difference_is_shown(ask: Run) -> None:
    status, shown, _ = ask("diff", 1, 2)
    assert status == 0 and "lung" in shown and "added" in shown


def test_lineage_is_shown_and_given_as_json(run: Run, ask: Run, corpus: Corpus) -> None:
    status, shown, _ = ask("lineage", "GGG")
    assert status == 0 and "/data/lung.h5ad" in shown and "lung-0" in shown
    for what in ("lung", "2"):
        assert ask("lineage", what)[0] == 0
    status, shown, _ = ask("lineage", "GGG", "--format", "json")
    assert json.loads(shown)[0]["source"]["sha256"] == "b" * 64


def test_vacuum_takes_a_length_of_time(ask: Run, corpus: Corpus) -> None:
    status, _, said = ask("vacuum", "--older-than", "yesterday")
    assert status == 1 and "24h" in said
    ask("delete", "--where", "donor_id = 'd4'")
    assert ask("vacuum", "--older-than", "0s")[0] == 0
    status, _, said = ask("show", "--snapshot", "2")
    assert status == 1 and "ended" in said
    assert n_cells(corpus) == 5


def test_compact_and_upgrade_say_when_nothing_is_to_do(ask: Run) -> None:
    assert "nothing to do" in ask("compact")[1]
    assert "newest format already" in ask("upgrade")[1]


def test_an_older_corpus_is_upgraded(run: Run, tmp_path: Path) -> None:
    import shutil

    old = shutil.copytree(Path(__file__).parent / "golden" / "format-1", tmp_path / "old")
    status, _, said = run("corpus", "show", "--corpus", old)
    assert status == 1 and "corpus upgrade" in said
    status, shown, _ = run("corpus", "upgrade", "--corpus", old)
    assert status == 0 and "format 1 is now 2" in shown
    assert run("corpus", "verify", "--deep", "--corpus", old)[0] == 0


def test_export_writes_cells_and_says_how_many(ask: Run, corpus: Corpus, tmp_path: Path) -> None:
    status, shown, _ = ask(
        "export", "t.h5ad", "--where", "tissue = 'blood'", "--genes", "CD3D, ACTB"
    )
    assert status == 0 and "t.h5ad: 3 cells of snapshot 2" in shown
    adata = anndata.read_h5ad(tmp_path / "t.h5ad")
    assert adata.var["symbol"].tolist() == ["CD3D", "ACTB"]
    assert [use.uri for use in corpus.uses()] == [str(tmp_path / "t.h5ad")]
    status, _, said = ask("export", "t.h5ad")
    assert status == 1 and "is there already" in said
    status, _, said = ask("export", "t.h5", "--snapshot", "1")
    assert status == 1 and "did you mean 'h5ad'" in said
    status, shown, _ = ask("export", "first", "--format", "parquet", "--snapshot", "1")
    assert status == 0 and "3 cells of snapshot 1" in shown and (tmp_path / "first").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("t.dataset", "--genes", "CD3D"), "tokens are of the genes of a vocabulary"),
        (("t.h5ad", "--recipe", "geneformer-v1"), "are of --format tokens, not of h5ad"),
        (("t.dataset", "--recipe", "geneformer-v9"), "did you mean 'geneformer-v"),
    ],
)
def test_export_tells_options_that_do_not_go_together(
    ask: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    status, _, remarks = ask("export", *words)
    assert status == 1 and said in remarks
    assert not (tmp_path / words[0]).exists()


def test_export_of_tokens_by_a_recipe_of_the_corpus(ask: Run, tmp_path: Path) -> None:
    words = ("--recipe", "geneformer-tiny", "--columns", "barcode,donor_id")
    status, shown, _ = ask("export", "t.dataset", *words)
    assert status == 0 and "t.dataset: 6 cells of snapshot 2" in shown
    assert {"state.json", "vocabulary.json", "medians.json"} <= {
        path.name for path in (tmp_path / "t.dataset").iterdir()
    }
