"""annbatch's own conversion of an h5ad, timed; run by the Python that has annbatch (3.12).

    python3.12 -m venv peer && peer/bin/pip install "annbatch[zarrs]==0.3.1"
    peer/bin/python benchmarks/annbatch_convert.py cells.h5ad folder --shuffle

Imports nothing of cytolake: the two do not live in one environment. Prints one line of JSON.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    """Convert once; with `--shuffle` as annbatch recommends, else the cells in their order."""
    warnings.simplefilter("ignore")
    import zarr
    from annbatch import DatasetCollection  # pyright: ignore[reportMissingImports]

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    began = time.perf_counter()
    collection = DatasetCollection(folder / "cells.zarr", mode="a")
    collection.add_adatas([source], shuffle="--shuffle" in sys.argv)
    seconds = time.perf_counter() - began
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(json.dumps({"seconds": seconds, "n_bytes": n_bytes, "version": version("annbatch")}))


if __name__ == "__main__":
    main()
