"""The judge of mutated sources: a planted difference is seen, and a worker's death is told."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.tests.faults import mutation_campaign
from cytolake.tests.faults.mutated_ingest import Landed, Outcome, Refused, differences, ingest
from cytolake.tests.faults.mutations import WAYS, Mutation, draw_mutations, fits, inflict
from cytolake.tests.faults.plain_reading import Plain, read_plainly

pytestmark = pytest.mark.filterwarnings("ignore:Observation names are not unique")


@pytest.fixture
def landed(adata: Any, tmp_path: Path, reference_table: Path) -> Landed:
    names = adata.obs_names.tolist()
    adata.obs_names = [*names[:39], names[3]]
    adata.write_h5ad(tmp_path / "a.h5ad")
    return ingest(tmp_path / "a.h5ad", tmp_path / "work", reference_table)


@pytest.fixture
def plain(landed: Landed) -> Plain:
    return read_plainly(landed.survey.path, "h5ad", landed.survey.layer, landed.column)


def test_a_sound_source_has_no_difference(landed: Landed, plain: Plain, reference: GeneReference):
    assert landed.n_read == 40 and 30 < landed.n_kept < 40
    assert differences(landed, plain, reference) == []


def test_every_planted_difference_is_seen(landed: Landed, plain: Plain, reference: GeneReference):
    more = plain.matrix.copy()
    more.data[5] += 1
    moved = plain.matrix.copy()
    moved.data[[0, 1]] = moved.data[[0, 1]] + [1.0, -1.0]  # the cell's total stays
    shifted = [plain.barcodes[-2], *plain.barcodes[1:-2], plain.barcodes[0], plain.barcodes[-1]]
    other = {**plain.obs, "donor": [plain.obs["donor"][0] + 7, *plain.obs["donor"][1:]]}
    for planted, said in (
        (replace(plain, matrix=more), "n_counts"),
        (replace(plain, matrix=moved), "counts of 1 cells, row 0"),
        (replace(plain, barcodes=shifted), "counts of 2 cells"),
        (replace(plain, barcodes=[*plain.barcodes[:2], "x", *plain.barcodes[3:]]), "other names"),
        (replace(plain, names=["ENSG00000000031", *plain.names[1:]]), "genes"),
        (replace(plain, obs=other), "column 'donor'"),
    ):
        found = differences(landed, planted, reference)
        assert any(said in line for line in found), (said, found)


def test_a_refusal_is_a_refusal_and_names_the_file(tmp_path: Path, reference_table: Path):
    (tmp_path / "a.h5ad").write_bytes(b"no such thing")
    with pytest.raises(Refused, match=r"a\.h5ad: is not a whole HDF5 file"):
        ingest(tmp_path / "a.h5ad", tmp_path / "work", reference_table)


def test_the_same_seed_mutates_the_same_bytes_and_every_way_changes_some(tmp_path: Path):
    folder = tmp_path / "sources"
    (folder / "csv").mkdir(parents=True)
    source = folder / "csv" / "t.csv"
    source.write_text("".join(f"c{i},{i},{i * 7}\n" for i in range(300)))
    kinds = {"csv": [source]}
    mutations = draw_mutations(folder, kinds, 3 * len(WAYS), 5)
    assert mutations == draw_mutations(folder, kinds, 3 * len(WAYS), 5)
    for mutation in mutations:
        copies = [
            inflict(mutation, folder, tmp_path / f"{i}-{mutation.number}", [source], 5)
            for i in range(2)
        ]
        one, two = (copy.read_bytes() for copy in copies)
        assert one == two
        assert one != source.read_bytes()
    assert {mutation.what for mutation in mutations} == {w for w in WAYS if fits(source, w)}


@pytest.mark.parametrize(
    ("last", "became"),
    [("import os; os.abort()", "crashed"), ("import time; time.sleep(60)", "hung")],
)
def test_a_worker_that_dies_or_hangs_is_the_outcome_of_its_mutation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, became: str
):
    monkeypatch.setattr(mutation_campaign, "PATIENCE", 3.0)
    begins = '{"begins": {"number": 7, "kind": "k", "source": "s", "file": ".", "what": "w"}}'
    words = [sys.executable, "-c", f"print('{begins}', flush=True); {last}"]
    life: Any = mutation_campaign.one_life
    (outcome,) = list(life(words, [7], tmp_path / "log.txt"))
    assert (outcome.became, outcome.mutation.number) == (became, 7)


def test_a_refusal_that_says_nothing_is_bare():
    mutation = Mutation(number=0, kind="h5ad", source="h5ad/a.h5ad", file=".", what="w")
    outcome = Outcome(mutation=mutation, became="refused", said="", seconds=0, megabytes=0)
    good = "/tmp/a.h5ad: obs has 3 cells, expected 4"
    for said, bare in (
        (good, False),
        ("KeyError: 'x'", True),
        ("/tmp/a.h5ad: cannot be read: KeyError: 'x'; copy it again", True),
        ("/tmp/b.h5ad: has no obs", True),
    ):
        assert replace(outcome, said=said).is_bare == bare
    assert not replace(outcome, became="wrong", said=str(np.nan)).is_bare
