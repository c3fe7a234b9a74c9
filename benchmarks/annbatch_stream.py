"""annbatch's own shuffled reading of a collection, timed; run by the Python that has annbatch.

    peer/bin/python benchmarks/annbatch_stream.py folder --epochs 2

`folder` is what `annbatch_convert.py` made. Chunks of 64 cells, 256 of them held, batches of 256:
as many cells are mixed with one another as in a stream of ours. Imports nothing of cytolake: the
two do not live in one environment. Prints one line of JSON.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    """Some epochs, each timed whole."""
    warnings.simplefilter("ignore")
    import zarr
    from annbatch import DatasetCollection, Loader  # pyright: ignore[reportMissingImports]

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    folder, n_epochs = Path(sys.argv[1]), int(sys.argv[sys.argv.index("--epochs") + 1])
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    n_cells = n_stored = 0
    for _ in range(n_epochs):
        loader = Loader(batch_size=256, chunk_size=64, preload_nchunks=256, shuffle=True)
        loader.use_collection(DatasetCollection(folder / "cells.zarr", mode="r"))
        began, cpu = time.perf_counter(), time.process_time()
        n_cells = n_stored = 0
        for batch in loader:
            n_cells += batch["X"].shape[0]
            n_stored += batch["X"].nnz
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu)
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "n_cells": n_cells}
    found["n_stored"] = n_stored
    print(json.dumps(found | {"version": version("annbatch")}))


if __name__ == "__main__":
    main()
