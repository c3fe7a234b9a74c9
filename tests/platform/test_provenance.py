"""Provenance: a checkout tells its commit and its changes, anything else its version."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from cytolake.platform.provenance import code_state


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_how_many_files_changed_since(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("one = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_state(tmp_path) == {
        "cytolake.code": f"commit {commit[:12]}, 0 files changed since",
        "mlflow.source.git.commit": commit,
        "git.dirty": "0",
    }
    (tmp_path / "code.py").write_text("one = 2\n")
    (tmp_path / "more.py").write_text("")
    assert code_state(tmp_path)["git.dirty"] == "2"


def test_what_is_no_checkout_tells_its_version(tmp_path: Path) -> None:
    expected = {"cytolake.code": f"installed {version('cytolake')}"}
    assert code_state(tmp_path) == expected
    (tmp_path / ".git").mkdir()  # not one that git can read
    assert code_state(tmp_path) == expected
