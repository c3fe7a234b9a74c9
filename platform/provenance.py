"""Which code is running: a checkout's commit and changes, or an installed version. Knows no run."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_GIT_SECONDS = 10


def code_state(root: Path = _ROOT) -> dict[str, str]:
    """Tags that say which code runs, under MLflow's names where it has one.

    Args:
        root: the package's folder.

    Returns:
        `cytolake.code`, a line for people; of a checkout also `mlflow.source.git.commit` and
        `git.dirty`, the number of files that differ from the commit.
    """
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        try:
            return {"cytolake.code": f"installed {version('cytolake')}"}
        except PackageNotFoundError:
            return {"cytolake.code": f"unpacked in {root}"}
    changed = _git(root, "status", "--porcelain")
    n_changed = "unknown" if changed is None else str(len(changed.splitlines()))
    return {
        "cytolake.code": f"commit {commit:.12}, {n_changed} files changed since",
        "mlflow.source.git.commit": commit,
        "git.dirty": n_changed,
    }


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where there is none, or it refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
