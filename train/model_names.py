"""Which checkpoint a name stands for. Knows folders of runs; knows no model and no corpus."""

from pathlib import Path

from ..platform.errors import CheckpointError, did_you_mean
from ..platform.settings import Settings
from .checkpoints import read_info
from .retention import BEST, best_checkpoint, newest_checkpoint


def find_model(name: str, settings: Settings) -> Path:
    """The checkpoint folder that a name stands for.

    Args:
        name: a checkpoint's or run's folder, the name or tracking id of a run under
            `settings.home`, or nothing for the run with the newest checkpoint there. With `@best`
            after it, the run's best checkpoint by validation loss instead of its newest.
        settings: where runs live.

    Raises:
        CheckpointError: there is none.
    """
    wants_best = name.endswith(BEST)
    folder = _model_folder(name.removesuffix(BEST), settings)
    return best_checkpoint(folder) if wants_best else newest_checkpoint(folder)


def _model_folder(name: str, settings: Settings) -> Path:
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    runs = settings.home / "runs"
    known: dict[str, Path] = {}
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        try:
            known[folder.name] = newest_checkpoint(folder)
        except CheckpointError:
            continue  # a run that has no checkpoint yet is no model
    if name in known:
        return runs / name
    if not known:
        raise CheckpointError(
            f"no model {name or 'in'} {runs}: pretrain one first, or give a checkpoint's folder"
        )
    if not name:
        return runs / max(known, key=lambda run: _time_of(known[run]))
    for run, place in known.items():
        if read_info(place).run_id == name:
            return runs / run
    raise CheckpointError(
        f"no model {name!r}: neither a folder nor a run in {runs}, which has "
        f"{', '.join(known)}{did_you_mean(name, known)}"
    )


def _time_of(place: Path) -> float:
    return (place / "checkpoint.json").stat().st_mtime
