"""What a run says, told to people at once and to the tracking store as it can be. Knows no Ray.

The run's folder holds everything; the store is told in order, each step once, by a thread that
tries again with growing pauses. What it could not be told stays owed, and the next call of the
same command tells it, also where the run is finished.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..platform.errors import CheckpointError
from ..platform.progress import Bar
from ..platform.provenance import code_state
from ..platform.tracking import Tracker
from .curves import training_curves
from .launches import said
from .lines import Row, Tail
from .retention import newest_checkpoint
from .runs import RunFolder
from .sharing import without_moments

_INTERVAL_S = 0.5
_LONGEST_PAUSE_S = 60.0
_FULL = 0.995
"""Packs that real tokens fill so far are not spoken of."""
_LONGEST_TAG = 5_000  # letters, in MLflow
_TAGGED = ("engine", "zero_stage", "n_ranks", "attention", "device", "precision", "host")


class Sender:
    """Tells the tracking store what a run's folder holds, in a thread of its own."""

    def __init__(self, folder: RunFolder, tracker: Tracker, *, goes_on: bool = True) -> None:
        """Bind a folder to a store; `goes_on` says that the run is in training again."""
        self._folder, self._tracker, self._goes_on = folder, tracker, goes_on
        self._told = folder.told()
        self._is_new = "step" not in self._told
        self._tails = {"step": Tail(folder.path / "metrics.jsonl")}
        self._waiting: dict[str, list[Row | None]] = {}
        self._n_read: dict[str, int] = {}
        self._greeted = self._recorded = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble: str | None = None
        """What the store, or the way to it, said last; None while it can be told."""

    def start(self) -> None:
        """Begin to tell."""
        self._thread = threading.Thread(target=self._run, name="cytolake-tell", daemon=True)
        self._thread.start()

    def finish(self) -> str | None:
        """Tell what is left, as long as the store takes it.

        Returns:
            What it could not be told, and why; None where it knows everything.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._tell()
            self._tell_end()
        except Exception as error:  # whatever it is, the run itself has ended well
            return f"not told to the tracking store yet: {self._left()} ({error})"
        return None

    def _run(self) -> None:
        pause = _INTERVAL_S
        while not self._over.wait(pause):
            try:
                self._tell()
                self.trouble, pause = None, _INTERVAL_S
            except Exception as error:  # whatever it is, the training goes on
                self.trouble, pause = str(error), min(_LONGEST_PAUSE_S, 2 * pause)

    def _tell(self) -> None:
        self._greet()
        for row in self._new("step"):
            step = int(row["step"]) if row is not None else 0
            if row is not None and step > self._told.get("step", 0):
                self._tracker.log_metrics(_values(row), step=step, when=row.get("time"))
                self._note("step", step)
            self._waiting["step"].pop(0)
        for path in sorted(self._folder.path.glob("system-*.jsonl")):
            self._tails.setdefault(path.name, Tail(path))
            for row in self._new(path.name):
                number = self._n_read.get(path.name, 0)
                if row is not None and number >= self._told.get(path.name, 0):
                    self._tracker.log_metrics(_values(row), step=number, when=row.get("time"))
                    self._note(path.name, number + 1)
                self._n_read[path.name] = number + 1
                self._waiting[path.name].pop(0)
        self._tell_records()

    def _greet(self) -> None:
        if self._greeted:
            return
        if self._goes_on:
            self._tracker.resume()
            self._tracker.set_tags(code_state())
            if changed := said(self._folder.launches()):
                self._tracker.set_tags({"changed": changed[-_LONGEST_TAG:]})
        opening = self._folder.opening()
        if opening is not None:
            self._tracker.log_parameters(opening["parameters"])
            for name, text in opening["texts"].items():
                self._tracker.log_text(text, name)
            for name in opening["files"]:
                self._tracker.log_file(self._folder.path / name)
            for dataset in opening["datasets"]:
                self._tracker.log_dataset(**dataset)
            self._folder.forget_opening()
        if not self._is_new:  # a kill may have come between telling a step and noting it
            known = self._tracker.last_step("loss")
            self._note("step", max(known, self._told.get("step", 0)))
        self._greeted = True

    def _tell_records(self) -> None:
        records = self._folder.records()
        if self._recorded or not records or len(records) != records[0]["n_ranks"]:
            return
        first = records[0]
        tags = {name: str(first[name]) for name in _TAGGED}
        tags["pids"] = " ".join(str(record["pid"]) for record in records)
        if first["passed_over"]:
            tags["passed_over"] = " ".join(first["passed_over"])
        self._tracker.set_tags(tags)
        peaks = {"peak.flops": first["peak_flops"], "peak.origin": first["peak_origin"]}
        self._tracker.log_parameters(peaks)
        self._recorded = True

    def _tell_end(self) -> None:
        status = self._folder.owed()
        if status is None:
            return
        self._tracker.finish(status)  # first: how it ended is known before much is copied
        if reports := self._folder.metrics():
            self._tracker.log_figure(training_curves(reports), "plots/training.png")
        if status == "FINISHED":
            with suppress(CheckpointError):  # a run of no step has none
                with without_moments(newest_checkpoint(self._folder.path)) as model:
                    self._tracker.log_folder(model, "model")
        self._folder.settle()

    def _new(self, name: str) -> list[Row | None]:
        """Rows that wait: what was read and not told, then what is new; None for a torn one."""
        waiting = self._waiting.setdefault(name, [])
        waiting += self._tails[name].lines()
        return list(waiting)

    def _note(self, name: str, value: int) -> None:
        self._told[name] = value
        self._folder.set_told(self._told)

    def _left(self) -> str:
        told = self._told.get("step", 0)
        n_left = sum(row["step"] > told for row in self._folder.metrics())
        parts = [f"{n_left:,} reports after step {told:,}"] if n_left else []
        if self._folder.owed() is not None:
            parts.append("the end, with model and curves")
        return " and ".join(parts) or "how this launch began"


class Watching:
    """Shows people what is new: a bar with the latest numbers, and lines that matter."""

    def __init__(self, folder: RunFolder, bar: Bar, sender: Sender) -> None:
        """Nothing is shown yet."""
        self._folder, self._bar, self._sender = folder, bar, sender
        self._tail = Tail(folder.path / "metrics.jsonl")
        self._shown, self._begun, self._validation = 0, False, ""
        self._in_trouble = False

    def look(self) -> None:
        """Show what is new; waits for nobody."""
        records = self._folder.records()
        if not self._begun and records and records[0]["rank"] == 0:
            self._begun = True
            self._shown = int(records[0]["resumed_at_step"])
            self._bar.start_from(self._shown)
            for remark in records[0]["passed_over"]:
                self._bar.say(remark)
        for row in self._tail.lines():
            if row is None:
                continue
            if "validation_loss" in row:
                self._validation = f" (held out {row['validation_loss']:.3f})"
            step = int(row["step"])
            if step > self._shown:
                self._bar.advance(step - self._shown)
                self._bar.note(note_of(row, self._validation))
                self._shown = step
        trouble = self._sender.trouble
        if (trouble is not None) != self._in_trouble:
            self._in_trouble = trouble is not None
            kept = "training goes on, and what it reports is kept and told later"
            self._bar.say(f"{trouble}; {kept}" if trouble else "the tracking store is told again")


def note_of(row: Mapping[str, float], validation: str = "") -> str:
    """A report in a line, what matters most first; what a narrow terminal cuts off comes last."""
    words = [
        f"loss {row['loss']:.3f}{validation}",
        f"{row['cells_per_s']:,.0f} cells/s",
        f"{row['tokens_per_s']:,.0f} tokens/s",
    ]
    if "mask_accuracy" in row:  # reports of older versions have none
        words.append(f"<mask> {100 * row['mask_accuracy']:.1f} %")
    words.append(f"chosen {100 * row['accuracy']:.1f} %")
    if "mfu" in row:
        words.append(f"MFU {100 * row['mfu']:.1f} %")
    if row.get("filled", 1.0) < _FULL:
        words.append(f"filled {100 * row['filled']:.0f} %")
    words += [
        f"wait {100 * row['data_wait']:.1f} %",
        f"lr {row['learning_rate']:.1e}",
        f"norm {row['gradient_norm']:.2f}",
    ]
    if row.get("memory_gb"):
        words.append(f"{row['memory_gb']:.1f} GB")
    return "  ".join(words)


def in_background(job: Callable[[], object], watching: Watching) -> Exception | None:
    """Run a job in a thread, so that this one can hear signals; its error, if it had one."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            job()
        except Exception as error:  # given to whoever waits, who raises it
            failed.append(error)

    thread = threading.Thread(target=run, name="cytolake-pretrain", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_INTERVAL_S)
        watching.look()
    watching.look()
    return failed[0] if failed else None


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("step", "time")}
