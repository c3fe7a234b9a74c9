"""Writes the golden corpus and checkpoint with whatever cytolake it is run under; see README.md.

    python tests/golden/make.py corpus FOLDER
    python tests/golden/make.py checkpoint FOLDER

The folders are written once per format, and then never again.
"""

import importlib.util
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa


def _tests() -> Path:
    import cytolake

    return Path(str(cytolake.__file__)).parent / "tests"


def _module_at(path: Path) -> Any:
    """A `conftest.py` of the same checkout as cytolake, as a module."""
    spec = importlib.util.spec_from_file_location(path.parent.name + "_" + path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _bare(fixture: Any) -> Any:
    """The function that pytest made a fixture of."""
    return fixture._get_wrapped_function()


def make_corpus(folder: Path) -> None:
    """Write the golden corpus: three sources, one of them with a column of its own, one refused."""
    fake = _module_at(_tests() / "conftest.py")
    prepare = _bare(fake.prepare_source)()
    corpus = _bare(fake.build_fake_corpus)(prepare)(folder)
    receipt, _ = prepare(corpus, "blood", source_id="not-raw", sha256="e" * 64)
    corpus.refuse_source(receipt, "X of not-raw holds no raw counts")
    corpus.commit_source(*_skin(corpus, fake))
    if hasattr(corpus, "annotate"):
        _change(folder)


def _skin(corpus: Any, fake: Any) -> tuple[Any, list[Any]]:
    """A source of two cells whose column `age` is lifted into `cells`."""
    cells = fake._batch(
        {
            "barcode": ["SKA", "SKC"],
            "counts": [[0, 7, 1], [4, 4, 0]],
            "n_counts": [8, 8],
            "cell_type": ["T cell", "T cell"],
            "donor_id": ["d5", "d5"],
            "tissue": "skin",
        }
    )
    cells = replace(cells, obs=cells.obs.append_column("age", pa.array([41, 41])))
    none = pa.table({"barcode": pa.array([], pa.string()), "reason": pa.array([], pa.string())})
    segment = fake.write_segment(
        corpus.segments_folder / "skin-0",
        "skin-0",
        cells,
        fake._var(3),
        pa.table({"cluster": ["skin-0", "skin-1"]}),
        none,
        {
            "corpus_uuid": corpus.uuid,
            "source_id": "skin",
            "source_sha256": "c" * 64,
            "first_row": 0,
        },
    )
    receipt = fake.Receipt(
        source_id="skin",
        uri="/data/skin.h5ad",
        sha256="c" * 64,
        n_bytes=1000,
        reader="h5ad",
        layer="X",
        n_read=2,
        n_kept=2,
        panel=True,
        units=("skin-0",),
    )
    return receipt, [segment]


def _change(folder: Path) -> None:
    """What formats from 2 on know besides: tags, uses, annotations, deletions, withdrawals."""
    from cytolake.corpus.store import Corpus

    corpus = Corpus.open(folder)
    corpus.tag("blood-and-lung", 2)
    Corpus.open(folder, "blood-and-lung").record_use(
        "pretrain", "tiny", where="tissue = 'blood'", uri="/runs/tiny"
    )
    corpus.annotate(pa.table({"source_id": ["lung"], "barcode": ["AAA"], "grade": ["high"]}))
    corpus.delete("source_id = 'blood' AND barcode = 'AAC'")
    corpus.withdraw("donor_id = 'd5' AND barcode = 'SKC'", "consent ended")
    corpus.compact()


def make_checkpoint(folder: Path) -> None:
    """Write a tiny model of fresh weights, some cells of two types, and their states."""
    import json

    from cytolake.evaluate.embeddings import cell_states
    from cytolake.train.checkpoints import save_checkpoint

    tiny = _module_at(_tests() / "evaluate" / "conftest.py")
    checkpoint, cells = tiny.tiny_checkpoint(seed=7), tiny.typed_cells(4, seed=7)
    save_checkpoint(
        folder,
        model=checkpoint.model,
        vocabulary=checkpoint.vocabulary,
        medians=checkpoint.medians,
        info=checkpoint.info,
    )
    states = cell_states(checkpoint, [cells], layer=-1, pack_tokens=64)
    expected = {
        "gene_ids": cells.gene_ids.tolist(),
        "counts": cells.to_csr().toarray().astype(int).tolist(),
        "states": states.tolist(),
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    os.environ["LOGNAME"], socket.gethostname = "maker", lambda: "golden"  # as records tell `by`
    {"corpus": make_corpus, "checkpoint": make_checkpoint}[sys.argv[1]](Path(sys.argv[2]))
