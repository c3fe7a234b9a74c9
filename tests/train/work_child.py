"""Ranks of a run's launch as processes of their own, without Ray; each writes down what it learns.

A server is forked from, which has imported all that is slow once.
"""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from cytolake.platform import faults
from cytolake.train import loop, worker
from cytolake.train.engines import Engine, this_rank
from cytolake.train.feeding import Feed, StepWork
from cytolake.train.recipe import PretrainRecipe
from cytolake.train.runs import RunFolder
from safetensors.torch import save_file
from torch import distributed, nn

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["cytolake.tests.train.work_child"])


def launch(
    folder: RunFolder, given: PretrainRecipe, notes: Path, **orders: Any
) -> list[ForkServerProcess]:
    """Launch a run that was begun, as the driver does, and wait until its ranks have ended."""
    begun = folder.read()
    assert begun is not None
    run, changed = begun.going_on_with(given)
    number = folder.begin_launch(changed)
    folder.write(replace(run, state="running"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    n_ranks = given.engine.workers
    ranks = [
        FORKS.Process(target=_rank, args=(folder.path, number, notes, rank, n_ranks, port, orders))
        for rank in range(n_ranks)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(240)
    for rank in ranks:  # one that waits for a rank that was killed
        rank.kill()
        rank.join()
    return ranks


def _rank(
    folder: Path,
    number: str,
    notes: Path,
    rank: int,
    n_ranks: int,
    port: int,
    orders: dict[str, Any],
) -> None:
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_ranks)})
    torch.set_num_threads(1)
    if n_ranks > 1:
        distributed.init_process_group("gloo")
    watch(folder, notes, **orders)
    worker.work(folder, number)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def watch(
    folder: Path,
    notes: Path,
    *,
    stop_after: int | None = None,
    kill_inside: int | None = None,
    die_at: tuple[str, int] | None = None,
) -> None:
    """Write down what a rank learns from, and do to it what is ordered.

    Args:
        folder: the run's folder.
        notes: where `fed.jsonl` and the moments that were restored go.
        stop_after: this step (from 0) is the last; the run is then asked to stop.
        kill_inside: kill -9 of the last rank inside this step: after the gradients of its first
            pack, before those of the next.
        die_at: rank 0 ends without a word at a step of storing (see `platform.faults`), the nth
            time it is reached.
    """
    feeds: list[Feed] = []
    learn: Callable[..., None] = loop.__dict__["learn"]
    record: Callable[..., dict[str, object]] = worker.__dict__["_record"]

    class Kept(Feed):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            feeds.append(self)

    def noted(engine: Engine, work: StepWork, rate: float, **more: Any) -> None:
        step = more["step"]
        is_last = this_rank() == int(os.environ["WORLD_SIZE"]) - 1
        if step == kill_inside and is_last:
            assert len(work.packs) > 1
            loss, _ = engine.forward(work.packs[0])
            engine.backward(loss)
            os.kill(os.getpid(), signal.SIGKILL)
        learn(engine, work, rate, **more)
        places = [place for place in work.places if place[0] >= 0]
        cells = [cell for place in places for cell in feeds[0].cell_ids_of(step, *place)]
        with (notes / f"fed-{this_rank()}.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "cells": cells}) + "\n")
        if step == stop_after and this_rank() == 0:
            RunFolder(folder).ask_to_stop()

    def recorded(
        objective: nn.Module, engine: Engine, n_done: int, *more: Any
    ) -> dict[str, object]:
        moments = engine.moments()
        if moments and this_rank() == 0:
            save_file(moments, notes / f"restored-{n_done}.safetensors")
        return record(objective, engine, n_done, *more)

    loop.__dict__["learn"] = noted
    worker.__dict__.update({"_record": recorded, "Feed": Kept, "_STOP_INTERVAL_S": 0.0})
    if die_at is not None and this_rank() == 0:
        faults.__dict__["_watcher"] = faults.death(*die_at)


def fed(notes: Path) -> dict[int, list[int]]:
    """The cells of each step, over all ranks and launches."""
    steps: dict[int, list[int]] = {}
    for path in notes.glob("fed-*.jsonl"):
        for line in path.read_text().splitlines():
            note = json.loads(line)
            steps.setdefault(note["step"], []).extend(note["cells"])
    return steps
