"""Pretraining on one GPU: checked, then timed beside stock Hugging Face, in one call of minutes.

    python3 benchmarks/gpu.py [--out FOLDER] [--seconds 420] [--tiny]

Needs torch, transformers, numpy, scipy, numba and pyarrow alone: no Ray, no DeepSpeed, no network,
nothing installed. Every check and every time is printed when it is known and kept in
FOLDER/gpu.json, so that a call which is cut short still tells what it found. `--tiny` runs all of
it on a CPU in a minute, at sizes that time nothing.

Tokens a second are end to end: counts in memory are encoded, packed, copied, masked and learnt
from by the trainer's own loop. MFU is `flops.BertShape.training_flops` of real tokens, real
squared lengths and chosen tokens, over seconds and 989 TFLOP/s (H100 and H200, bf16 dense).
"""

import argparse
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import gpu_parts as parts
from benchmarks.pretraining_peers import V1_10M, V2_104M, Shape, make_importable

TINY = Shape(vocabulary_size=120, length=64, layers=2, width=32, heads=2, feed_forward=64)


def main() -> int:
    """Check and time everything; how many parts failed is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-report"))
    parser.add_argument("--seconds", type=float, default=420.0)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    make_importable()
    device = torch.device("cpu" if asked.tiny else "cuda")
    half, steps = not asked.tiny, 4 if asked.tiny else 40
    report = parts.Report(asked.out, asked.seconds)
    name = platform.processor() if asked.tiny else torch.cuda.get_device_name()
    report.tell(
        "machine",
        device=name,
        torch=torch.__version__,
        transformers=__import__("transformers").__version__,
        python=platform.python_version(),
    )
    torch.set_float32_matmul_precision("highest")
    if asked.tiny:
        torch.set_num_threads(1)  # tiny matrices: a second thread only waits for the first
    small, large = (TINY, TINY) if asked.tiny else (V1_10M, V2_104M)
    budget = 4 * TINY.length if asked.tiny else 131_072
    with report.part("masks"):
        parts.check_masks(report, device)
    with report.part("equality"):
        parts.check_equal_to_stock(report, small, device, half)

    def trainer(shape: Shape, tokens: int, packs: int = 1) -> parts.Trainer:
        return parts.Trainer(
            shape, device, tokens=tokens, packs=packs, half=half, compiled=not asked.tiny
        )

    ours: dict[str, float] = {}
    with report.part("no waiting"):
        parts.check_no_waiting(report, trainer(small, budget), device, 4 if asked.tiny else 50)
    # The paper's 144 cells a step in one pack; then as large as is fast.
    for tokens, packs in ((budget * 19 // 16, 1), (budget, 4), (budget * 2, 4)):
        with report.part(f"ours, 10M, {packs} packs of {tokens}"):
            made = trainer(small, tokens, packs)
            rate = parts.time_ours(report, "ours, 10M", made, max(2, steps // packs))
            ours["10M"] = max(rate, ours.get("10M", 0.0))
    with report.part("profile"):
        parts.profiled(trainer(small, budget, 4), asked.out)
    with report.part("stock, 10M"):
        best: dict[str, float] = {}
        for rows in (4,) if asked.tiny else (12, 32, 64):
            found = parts.time_stock(
                report, small, device, half=half, rows=rows, n_steps=3 if asked.tiny else 10
            )
            best = {kind: max(rate, best.get(kind, 0.0)) for kind, rate in found.items()}
        report.tell(
            "ours beside stock, 10M", **{kind: ours["10M"] / rate for kind, rate in best.items()}
        )
    with report.part("resume"):
        parts.check_resume(report, lambda: trainer(small, budget))
    with report.part("ours, 104M"):
        parts.time_ours(report, "ours, 104M", trainer(large, budget // 2, 4), max(2, steps // 8))
    return len(report.failed)


if __name__ == "__main__":
    sys.exit(main())
