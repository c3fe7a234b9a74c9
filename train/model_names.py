"""Which checkpoint a name stands for. Knows folders of runs; knows no model and no corpus."""

from pathlib import Path

from ..platform.errors import CheckpointError, did_you_mean
from ..platform.settings import Settings
from .checkpoints import newest_checkpoint, read_info


def find_model(name: str, settings: Settings) -> Path:
    """The checkpoint folder that a name stands for.

    Args:
        name: a checkpoint's or run's folder, the name or tracking id of a run under
            `settings.home`, or nothing for the newest checkpoint there.
        settings: where runs live.

    Raises:
        CheckpointError: there is none.
    """
    if name and Path(name).expanduser().is_dir():
        return newest_checkpoint(Path(name).expanduser())
    runs = settings.home / "runs"
    known: dict[str, Path] = {}
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        try:
            known[folder.name] = newest_checkpoint(folder)
        except CheckpointError:
            continue  # a run that has no checkpoint yet is no model
    if name in known:
        return known[name]
    if not known:
        raise CheckpointError(
            f"no model {name or 'in'} {runs}: pretrain one first, or give a checkpoint's folder"
        )
    if not name:
        return max(known.values(), key=lambda place: (place / "checkpoint.json").stat().st_mtime)
    for place in known.values():
        if read_info(place).run_id == name:
            return place
    raise CheckpointError(
        f"no model {name!r}: neither a folder nor a run in {runs}, which has "
        f"{', '.join(known)}{did_you_mean(name, known)}"
    )
