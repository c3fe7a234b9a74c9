"""One worker of a pretraining: corpus in, steps and checkpoints out. Knows no Ray.

It is told a run's folder and finds the rest there; it goes on from the newest complete checkpoint.
Without a process group it is the only rank, in a plain process.
"""

import math
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import distributed

from ..corpus.store import Corpus
from ..corpus.stream import Selection, Stream
from ..corpus.tissue_cap import capped
from ..platform.errors import CytolakeError, TrainingError
from ..platform.samples import Sampler
from .checkpoints import (
    CheckpointInfo,
    load_moments,
    load_weights,
    newest_sound,
    read_info,
    save_checkpoint,
    weights_of,
)
from .devices import device_here, settled_precision
from .engines import Engine, TorchEngine, n_ranks, sum_over_ranks, this_rank
from .families import FAMILIES
from .feeding import Feed, Plan, plan_of
from .flops import shape_of
from .gene_door import Genes, refuse_other_genes
from .loop import LeftOut, LoopEnd, Metrics, train
from .objectives.masked_genes import MaskedGenes
from .peak import Peak, Roof, peak_of
from .recipe import PretrainRecipe
from .retention import folder_name, retain, sweep
from .runs import Run, RunFolder, genes_in
from .saving import Saver
from .starting import load_start, steps_before
from .validation import Validation, validation_selection

_STOP_INTERVAL_S = 0.2


def work(folder: Path, launch: str | None = None, device: torch.device | None = None) -> LoopEnd:
    """Train the run of a folder to its end, or until it is asked to stop.

    Args:
        folder: the run's folder.
        launch: the launch that this worker belongs to; the folder's last one where None.
        device: what this worker was given; where None, in a plain process, the GPU if there is one.

    Raises:
        CytolakeError: anything this run cannot go on with; noted in the folder for the driver.
    """
    run_folder = RunFolder(folder, launch or RunFolder(folder).launch())
    run_folder.refuse_other_launch()
    if (failure := run_folder.failure()) is not None:  # a retry cannot help: do not begin
        raise TrainingError(failure["message"])
    try:
        return _work(run_folder, device or device_here())
    except CytolakeError as error:
        with suppress(CytolakeError, OSError):  # the disk may be what failed
            run_folder.write_failure(type(error).__name__, str(error))
        raise


def _work(folder: RunFolder, device: torch.device) -> LoopEnd:
    run = folder.read()
    if run is None:
        raise TrainingError(f"{folder.path}: holds no run.json; start the run with its recipe")
    precision = settled_precision(run.pretrain_recipe, device, run.precision)
    if this_rank() == 0 and not run.precision:
        folder.set_precision(precision)
    recipe = run.pretrain_recipe.in_precision(precision)
    torch.set_num_threads(recipe.engine.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what is made without naming a device lies there, too
    corpus = Corpus.open(run.corpus_uri, snapshot=run.snapshot)
    selection = selection_of(recipe, corpus)
    if selection.digest != run.selection_digest:
        raise TrainingError(
            f"snapshot {run.snapshot} of {run.corpus_uri} gives the cells {selection.digest:.12}, "
            f"the run {run.name} began with {run.selection_digest:.12}: give it another name"
        )
    vocabulary, medians = genes = folder.genes()
    family = FAMILIES[recipe.family]
    model = family.model(recipe, vocabulary, recipe.training.seed)
    start, passed_over = _resume_point(folder, recipe)
    _refuse_other_genes(folder, run, genes, start)
    if start is not None:
        load_weights(model, start)
    moments = {} if start else load_start(folder.path, run.origin, model)
    torch.nn.Module.to(model, device)  # in place; transformers' own `to` is typed as a method
    objective = family.objective(model, recipe, vocabulary)
    engine = _engine(recipe, objective)
    n_done = read_info(start).step if start else 0
    if start is not None or moments:
        engine.restore(load_moments(start) if start else moments, n_done + steps_before(run.origin))
    peak = peak_of(device, precision)
    folder.write_record(
        this_rank(), _record(objective, engine, n_done, peak) | {"passed_over": passed_over}
    )
    stream = Stream(
        corpus,
        selection,
        seed=recipe.training.seed,
        cells_per_group=recipe.training.cells_per_group,
    )
    training = recipe.training
    plan = plan_of(
        stream.n_groups,
        groups_per_step=run.step_groups,
        epochs=training.epochs,
        steps=training.steps,
    )
    feed = Feed(
        stream,
        family.encoding(vocabulary, medians, recipe.encoding.length),
        objective,
        plan,
        pack_tokens=training.pack_tokens,
        rank=this_rank(),
        n_ranks=n_ranks(),
    )
    reported = folder.forget_after(n_done) if this_rank() == 0 else frozenset[int]()
    digests = (vocabulary.digest, medians.digest)
    held_out = validation_selection(recipe, corpus)
    validation = None
    if held_out is not None:
        validation = Validation(
            corpus,
            held_out,
            family.encoding(vocabulary, medians, recipe.encoding.length),
            objective,
            cells_per_group=training.cells_per_group,
            pack_tokens=training.pack_tokens,
        )
    saver, scores = Saver(), dict[int, dict[str, float]]()

    def save(step: int) -> None:
        moments = engine.moments()
        if this_rank() != 0:
            return
        saver.save(
            partial(
                save_checkpoint,
                folder.checkpoints,
                model=model,
                vocabulary=vocabulary,
                medians=medians,
                info=_info(run, recipe, plan, step, digests),
                moments={name: value.cpu() for name, value in moments.items()},
                weights=weights_of(model),
                scores=scores.get(step),
                keep=recipe.checkpoints.keep,
                reports=folder.metrics(),
                keep_best=recipe.checkpoints.keep_best,
                maker=folder.worker_of or "",
                may_publish=folder.refuse_other_launch,
            )
        )

    def report(metrics: Metrics) -> None:
        if this_rank() != 0:
            return
        saver.check()  # a full disk is told now, not at the next save
        known = {name: value for name, value in asdict(metrics).items() if value is not None}
        scores.clear()
        if (found := {name: known[name] for name in known if name.startswith("validation_")}) != {}:
            scores[metrics.step] = found
        folder.add_metrics({**known, "time": time.time()})

    def report_left_out(left_out: LeftOut) -> None:
        if this_rank() == 0:
            cells = [cell for place in left_out.packs for cell in feed.cell_ids_of(*place)]
            folder.add_left_out([step + 1 for step in left_out.steps], cells)

    sampler = _sampler(folder)
    model.train()
    try:
        end = train(
            engine,
            feed,
            plan,
            recipe.optimizer,
            seed=training.seed,
            start=n_done,
            log_seconds=training.log_seconds,
            reported=reported,
            report=report,
            report_left_out=report_left_out,
            stop_after=training.bad_steps,
            save=save,
            save_every=recipe.checkpoints.every_steps,
            validate=validation,
            validate_every=recipe.validation.every_steps or 0,
            wants_stop=_StopAsked(folder),
            deadline=_deadline(folder, training.max_hours),
            roof=Roof(
                shape=shape_of(recipe, vocabulary.size), flops=sum_over_ranks([peak.flops])[0]
            ),
            noted_in=str(folder.left_out),
        )
        saver.wait()
    finally:
        sampler.close()
        saver.close()
        feed.close()
        stream.close()
    if this_rank() == 0:
        folder.write_end(end.step, end.why)
    _wait_for_all()
    return end


def selection_of(recipe: PretrainRecipe, corpus: Corpus) -> Selection:
    """The cells that a recipe may learn from."""
    part = recipe.data.part
    split = recipe.split if part is not None else None
    selection = corpus.select(recipe.data.where, split=split, part=part)
    if recipe.data.cap_per_tissue is None:
        return selection
    return capped(corpus, selection, share=recipe.data.cap_per_tissue, seed=recipe.training.seed)


def _resume_point(folder: RunFolder, recipe: PretrainRecipe) -> tuple[Path | None, list[str]]:
    """The newest sound checkpoint; which one that is, rank 0 says."""
    step, passed_over = -1, list[str]()
    if this_rank() == 0:
        sweep(folder.checkpoints)
        found, passed_over = newest_sound(folder.checkpoints)
        if found is not None:
            step = read_info(found).step
            keep = recipe.checkpoints
            retain(folder.checkpoints, keep.keep, keep_best=keep.keep_best)
    if n_ranks() > 1:
        said = torch.tensor([step])
        distributed.broadcast(said, src=0)
        step = int(said)
    return folder.checkpoints / folder_name(step) if step >= 0 else None, passed_over


def _refuse_other_genes(folder: RunFolder, run: Run, genes: Genes, start: Path | None) -> None:
    """Refuse frozen genes that have changed since: against the checkpoint's, else by digest."""
    if start is not None:
        refuse_other_genes(
            genes,
            genes_in(start),
            chosen=f"the run's folder {folder.path}",
            checkpoint=f"its checkpoint {start.name}",
            way_out=f"Copy vocabulary.json and medians.json from {start} into {folder.path}",
        )
    run.refuse_other_genes(folder.path, *genes)


def _sampler(folder: RunFolder) -> Sampler:
    """What this node is doing, told by its first worker, and by none of the others."""
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", str(n_ranks())))  # Ray Train sets them
    is_first = int(os.environ.get("LOCAL_RANK", str(this_rank()))) == 0
    node = "" if n_here == n_ranks() else socket.gethostname()
    sampler = Sampler(partial(folder.add_sample, node or "here"), node)
    if is_first:
        sampler.start()
    return sampler


def _deadline(folder: RunFolder, hours: float | None) -> float:
    """When a launch's time is over, on this process's monotonic clock."""
    if hours is None:
        return math.inf
    return time.monotonic() + hours * 3600 - (time.time() - folder.launched_at())


def _engine(recipe: PretrainRecipe, objective: MaskedGenes) -> Engine:
    if recipe.engine.kind == "torch":
        return TorchEngine(objective, recipe.optimizer)
    from .deepspeed_engine import DeepSpeedStepper

    return DeepSpeedStepper(objective, recipe.optimizer, recipe.engine.zero_stage)


def _record(objective: MaskedGenes, engine: Engine, n_done: int, peak: Peak) -> dict[str, object]:
    """What this worker is: nothing of it is what was asked for, all of it is what is there."""
    return {
        "rank": this_rank(),
        "n_ranks": n_ranks(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "engine": engine.name,
        "zero_stage": engine.zero_stage,
        "backend": distributed.get_backend() if distributed.is_initialized() else "none",
        "device": str(objective.model.device),
        "attention": objective.attention,
        "precision": objective.precision,
        "threads": torch.get_num_threads(),
        "peak_flops": peak.flops,
        "peak_origin": peak.origin,
        "resumed_at_step": n_done,
    }


def _info(
    run: Run, recipe: PretrainRecipe, plan: Plan, step: int, digests: tuple[str, str]
) -> CheckpointInfo:
    return CheckpointInfo(
        family=recipe.family,
        recipe=run.recipe,
        length=recipe.encoding.length,
        snapshot=run.snapshot,
        corpus_uuid=run.corpus_uuid,
        where=recipe.data.where,
        part=recipe.data.part,
        selection_digest=run.selection_digest,
        n_cells=run.n_cells,
        vocabulary_digest=digests[0],
        medians_digest=digests[1],
        step=step,
        epoch=step / plan.steps_per_epoch,
        run_id=run.run_id,
        versions=versions(),
        origin=run.origin,
        precision=recipe.training.precision,
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a training rests on."""
    found = {"python": sys.version.split()[0]}
    for name in ("cytolake", "torch", "transformers", "deepspeed", "ray", "numpy", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class _StopAsked:
    """Whether the run is asked to stop; the folder is looked at a few times a second.

    A worker whose launch is over finds that here, at the latest.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._looked, self._said = folder, 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._said and now - self._looked >= _STOP_INTERVAL_S:
            self._folder.refuse_other_launch()
            self._looked, self._said = now, self._folder.is_asked_to_stop()
        return self._said


def _wait_for_all() -> None:
    if n_ranks() > 1:
        distributed.barrier()
