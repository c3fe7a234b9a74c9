"""Pretraining on one GPU: checked, then timed beside stock Hugging Face, in one call of minutes.

    python3 benchmarks/gpu.py [--out FOLDER] [--seconds 420] [--tiny]

Needs torch, transformers, numpy, scipy, numba and pyarrow alone: no Ray, no DeepSpeed, no network,
nothing installed. Every check and every time is printed when it is known and kept in
FOLDER/gpu.json, so that a call which is cut short still tells what it found. `--tiny` runs all of
it on a CPU in a minute, at sizes that time nothing.

A part that fails is told, and the parts after it run. The exit status is 1 where a part failed,
2 where none failed but the time was up before all of them were begun, else 0.

Tokens a second are end to end: counts in memory are encoded, packed, copied, masked and learnt
from by the trainer's own loop. Most timings have groups of cells that fill their packs; one has the
cells a group, groups a step and tokens a pack of the shipped recipe. MFU is
`flops.BertShape.training_flops` of real tokens, real squared lengths and chosen tokens, over
seconds and the device's peak (`train/peak.py`).
"""

import argparse
import platform
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import gpu_checks as checks
from benchmarks import gpu_timings as timings
from benchmarks.gpu_parts import Report, Trainer
from benchmarks.pretraining_peers import ROOT, V1_10M, V2_104M, Shape, make_importable

TINY = Shape(vocabulary_size=120, length=64, layers=2, width=32, heads=2, feed_forward=64)


def main() -> int:
    """Check and time everything; see above for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-report"))
    parser.add_argument("--seconds", type=float, default=420.0)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    make_importable()
    report = Report(asked.out, asked.seconds)
    report.tell(
        "machine",
        device=platform.processor() if asked.tiny else torch.cuda.get_device_name(),
        torch=torch.__version__,
        transformers=__import__("transformers").__version__,
        python=platform.python_version(),
    )
    torch.set_float32_matmul_precision("highest")
    if asked.tiny:
        torch.set_num_threads(1)  # tiny matrices: a second thread only waits for the first
    _every_part(report, tiny=asked.tiny)
    return 1 if report.failed else 2 if report.left_out else 0


def _every_part(report: Report, *, tiny: bool) -> None:
    """The parts, what decides most first: the time may be up before the last."""
    device = torch.device("cpu" if tiny else "cuda")
    small, large = (TINY, TINY) if tiny else (V1_10M, V2_104M)
    budget, steps = (4 * TINY.length, 4) if tiny else (131_072, 40)
    n_stock = 3 if tiny else 10

    def trainer(shape: Shape, tokens: int, packs: int = 1) -> Trainer:
        return Trainer(shape, device, tokens=tokens, packs=packs, half=not tiny, compiled=not tiny)

    def ours(tokens: int, packs: int) -> float:
        made = trainer(small, tokens, packs)
        return timings.time_ours(report, "ours, 10M", made, max(2, steps // packs))

    def as_shipped() -> float:
        cells, groups, tokens = (4, 2, TINY.length) if tiny else shipped()
        made = Trainer(
            small,
            device,
            tokens=tokens,
            cells_per_group=cells,
            groups_per_step=groups,
            half=not tiny,
            compiled=not tiny,
        )
        return timings.time_ours(report, "ours, 10M, as the recipe is shipped", made, steps)

    report.run("masks", lambda: checks.check_masks(report, device))
    report.run("equality", lambda: checks.check_equal_to_stock(report, small, device))
    report.run(
        "no waiting",
        lambda: checks.check_no_waiting(report, trainer(small, budget), 4 if tiny else 50),
    )
    # The paper's 144 cells a step in one pack; then as large as is fast.
    rates = [
        report.run(f"ours, 10M, {packs} packs of {tokens}", lambda t=tokens, p=packs: ours(t, p))
        for tokens, packs in ((budget * 19 // 16, 1), (budget, 4), (budget * 2, 4))
    ]
    theirs = [
        report.run(
            f"stock, 10M, {rows} cells a batch",
            lambda n=rows: timings.time_stock(
                report, small, device, half=not tiny, rows=n, n_steps=n_stock
            ),
        )
        for rows in ((4,) if tiny else (12, 32, 64))
    ]
    report.run("beside stock", lambda: timings.beside(report, "10M", rates, theirs))
    report.run(
        "resume", lambda: checks.check_resume(report, lambda: trainer(small, budget), exact=tiny)
    )
    report.run("as shipped", as_shipped)
    report.run(
        "ours, 104M",
        lambda: timings.time_ours(
            report, "ours, 104M", trainer(large, budget // 2, 4), max(2, steps // 8)
        ),
    )
    report.run("profile", lambda: timings.profiled(trainer(small, budget, 4), report.folder))


def shipped() -> tuple[int, int, int]:
    """Cells a group, groups a step and tokens a pack of the shipped recipe of 10M parameters."""
    text = (ROOT / "train/recipes/geneformer-v1-10m.toml").read_text(encoding="utf-8")
    training = tomllib.loads(text)["training"]
    cells = training["cells_per_group"]
    return cells, training["cells_per_step"] // cells, training["pack_tokens"]


if __name__ == "__main__":
    sys.exit(main())
