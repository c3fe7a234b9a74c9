"""A child process that feeds some ranks from a step on, and writes down what it fed.

python -m cytolake.tests.train.fed_child corpus n_ranks first_step out.jsonl
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from cytolake.corpus.medians import MediansSet
from cytolake.corpus.store import Corpus
from cytolake.corpus.stream import Stream
from cytolake.corpus.vocabularies import Vocabulary
from cytolake.train.encodings.rank_value import RankValueEncoding
from cytolake.train.feeding import Feed, StepWork, plan_of
from cytolake.train.models.bert import bert_config, fresh_bert
from cytolake.train.objectives.masked_genes import MaskedGenes

N_EPOCHS = 4


def feeds_of(uri: str, n_ranks: int) -> tuple[list[Feed], int]:
    """A feed a rank, each with a corpus and a stream of its own; and the number of steps."""
    feeds: list[Feed] = []
    n_steps = 0
    for rank in range(n_ranks):
        corpus = Corpus.open(uri)
        chosen = corpus.select()
        stream = Stream(corpus, chosen, seed=3, cells_per_group=4, block=2, buffer=16)
        genes = tuple(str(gene) for gene in stream.gene_ids)
        vocabulary = Vocabulary(gene_ids=genes)
        medians = MediansSet(gene_ids=genes, medians=np.linspace(1, 2, len(genes)))
        config = bert_config(
            vocabulary_size=vocabulary.size,
            length=32,
            layers=1,
            width=8,
            heads=1,
            feed_forward=8,
            hidden_dropout=0,
        )
        plan = plan_of(stream.n_groups, groups_per_step=5, epochs=N_EPOCHS)
        feeds.append(
            Feed(
                stream,
                RankValueEncoding(vocabulary, medians, 32),
                MaskedGenes(fresh_bert(config, 3), n_special=2, seed=1),
                plan,
                pack_tokens=64,
                rank=rank,
                n_ranks=n_ranks,
            )
        )
        n_steps = plan.n_steps
    return feeds, n_steps


def told(works: list[StepWork]) -> list[list[object]]:
    """A step's packs over all ranks: group, number in it, and a hash of every tensor."""
    packs: list[list[object]] = []
    for work in works:
        for (group, number), masked in zip(work.places, work.packs, strict=True):
            if group < 0:  # the empty pack of a rank without cells
                continue
            digest = hashlib.sha256()
            pack = masked.pack
            for tensor in (
                pack.tokens,
                pack.positions,
                pack.offsets,
                pack.keys,
                masked.rows,
                masked.labels,
            ):
                digest.update(tensor.numpy().tobytes())
            packs.append([group, number, digest.hexdigest()])
    return sorted(packs, key=str)


def main(uri: str, n_ranks: int, first_step: int, out: Path) -> None:
    feeds, n_steps = feeds_of(uri, n_ranks)
    with out.open("a") as file:
        for step in range(first_step, n_steps):
            line = {"step": step, "packs": told([feed.work(step) for feed in feeds])}
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            print(step, flush=True)
            sys.stdin.readline()  # whoever kills says when to go on


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
