"""The deletion screen against deleting by hand in the stock model."""

import numpy as np
import pytest
import torch
from cytolake.evaluate.cells import encode_cells
from cytolake.evaluate.tasks.perturb import AGREEMENT, TRAP, perturb, screen
from cytolake.platform.errors import EvaluationError
from cytolake.train.checkpoints import Checkpoint
from transformers import BertForMaskedLM

from .conftest import GENE_IDS, a_recipe, tiny_checkpoint, typed_cells

V2 = ("<pad>", "<mask>", "<cls>", "<eos>")
SYMBOLS = {gene_id: f"G{number}" for number, gene_id in enumerate(GENE_IDS, 1)}


def stock_shifts(checkpoint: Checkpoint, cell: list[int], n_special: int) -> list[float]:
    """Delete by list.pop, run the stock model, pool what is left, compare: all with loops."""
    config = checkpoint.model.config.__class__.from_dict(checkpoint.model.config.to_dict())
    config._attn_implementation = "eager"
    stock = BertForMaskedLM(config).eval()
    stock.load_state_dict(checkpoint.model.state_dict())

    def states(tokens: list[int]) -> dict[int, np.ndarray]:
        with torch.no_grad():
            out = stock(input_ids=torch.tensor([tokens]), output_hidden_states=True)
        hidden = out.hidden_states[-2][0].double().numpy()
        return {t: hidden[p] for p, t in enumerate(tokens) if t >= n_special}

    before = states(cell)
    shifts: list[float] = []
    for place, gene in enumerate(cell):
        if gene < n_special:
            continue
        rest = list(cell)
        rest.pop(place)
        after = states(rest)
        pools = [
            np.mean([held[other] for other in rest if other >= n_special], axis=0)
            for held in (before, after)
        ]
        units = [pool / np.linalg.norm(pool) for pool in pools]
        shifts.append(float(0.5 * np.sum((units[0] - units[1]) ** 2)))
    return shifts


@pytest.mark.parametrize("special", [V2[:2], V2], ids=["V1", "V2"])
def test_a_screen_is_every_deletion_by_hand(special: tuple[str, ...]):
    checkpoint = tiny_checkpoint(special=special)
    tokens = encode_cells([typed_cells(3)], checkpoint.encoding).tokens
    n_special = len(special)
    found = screen(checkpoint.model, tokens, n_special=n_special, layer=-2, pack_tokens=60)
    for cell in range(3):
        expected = stock_shifts(checkpoint, tokens.cell(cell).tolist(), n_special)
        here = found.cells == cell
        # Shifts are differences of float32 states: absolute agreement is what can be asked.
        assert found.shifts[here] == pytest.approx(expected, rel=1e-3, abs=1e-9)
        genes = [token for token in tokens.cell(cell).tolist() if token >= n_special]
        assert found.genes[here].tolist() == genes
        assert found.ranks[here].tolist() == list(range(len(genes)))


def test_the_screen_does_not_depend_on_the_pack(checkpoint: Checkpoint):
    tokens = encode_cells([typed_cells(2)], checkpoint.encoding).tokens
    one = screen(checkpoint.model, tokens, n_special=2, layer=-2, pack_tokens=1)
    many = screen(checkpoint.model, tokens, n_special=2, layer=-2, pack_tokens=4096)
    assert one.shifts == pytest.approx(many.shifts, rel=1e-3, abs=1e-9)


def test_a_result_names_genes_units_and_the_trap(checkpoint: Checkpoint):
    cells = encode_cells([typed_cells(8)], checkpoint.encoding)
    done: list[int] = []
    result = perturb(
        checkpoint,
        cells,
        a_recipe("perturb"),
        symbols=SYMBOLS,
        what="cell_type T cell",
        advance=done.append,
    )
    table = result.tables["genes"]
    z = table.column("z").to_pylist()
    assert z == sorted(z, reverse=True)
    assert set(table.column("symbol").to_pylist()) <= set(SYMBOLS.values())
    assert min(table.column("cells").to_pylist()) >= 3
    assert sum(done) == 2 * int((cells.tokens.tokens >= 2).sum())
    assert {score.unit for score in result.scores if score.name == TRAP} == {"cells"}
    assert any("the unit is the cell" in note for note in result.notes)
    assert "A raw shift is mostly rank" in result.verdict
    assert {score.name for score in result.scores} == {TRAP, AGREEMENT}


def test_the_same_recipe_gives_the_same_bits(checkpoint: Checkpoint):
    cells = encode_cells([typed_cells(4)], checkpoint.encoding)
    first, again = (
        perturb(checkpoint, cells, a_recipe("perturb"), symbols=SYMBOLS, what="cells")
        for _ in range(2)
    )
    assert first.tables["genes"].equals(again.tables["genes"])
    assert first.scores == again.scores


def test_too_few_cells_are_refused(checkpoint: Checkpoint):
    cells = encode_cells([typed_cells(2)], checkpoint.encoding)
    with pytest.raises(EvaluationError, match="expected at least 3"):
        perturb(checkpoint, cells, a_recipe("perturb"), symbols=SYMBOLS, what="cells")
