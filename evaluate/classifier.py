"""A classification head on a model's pooled last states, fine-tuned on some cells.

Knows tokens and class numbers; knows no corpus, no fold and no Ray. What it needs and gives is
arrays, so that a fold can be learnt in another process; the same seed gives the same bits with
the same number of threads. Array suffixes: c cell, k class, t token position, d width.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import BertConfig

from ..platform.errors import EvaluationError
from ..train.encodings.tokens import TokenBatch
from ..train.models.bert import PackedBert, fresh_bert
from ..train.packing import Pack, pack_cells, pack_of
from .embeddings import arithmetic_threads, mean_of_genes
from .recipe import EvaluationRecipe

LEAST_SPREAD = 0.02
"""Least scale of the head's input, as a share of the states' root mean square. Fresh and trained
models had 0.05 and more; a model whose states have collapsed (0.0005 was seen after a pretraining
that learnt gene frequencies only) is not blown up by its own noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelArrays:
    """A model as plain values.

    Attributes:
        configuration: Hugging Face's, as a dictionary.
        weights: the state dict as numpy arrays.
        n_special: how many special tokens its vocabulary begins with.
    """

    configuration: dict[str, Any]
    weights: dict[str, NDArray[np.generic]]
    n_special: int

    @classmethod
    def of(cls, model: PackedBert, n_special: int) -> "ModelArrays":
        """Take a model apart."""
        weights = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
        return cls(configuration=model.config.to_dict(), weights=weights, n_special=n_special)

    def model(self) -> PackedBert:
        """Put the model together again."""
        model = fresh_bert(BertConfig.from_dict(self.configuration), seed=0)
        # Copied: arrays from Ray's object store may not be written to.
        model.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in self.weights.items()})
        return model


class CellClassifier(nn.Module):
    """Encoder, mean over genes, one linear layer.

    Pooled states differ little from cell to cell beside what they share, so a fresh linear layer
    would need many steps to see the difference. Its input is therefore centred and scaled by what
    the training cells had before the first step: the head stays linear in the pooled state.
    """

    def __init__(
        self, model: PackedBert, *, n_classes: int, n_special: int, frozen_layers: int
    ) -> None:
        """Take over a copy of the model's weights; see `FinetuneRecipe.frozen_layers`.

        Raises:
            EvaluationError: there are not so many layers to freeze.
        """
        super().__init__()
        self.encoder = copy.deepcopy(model)
        width = int(model.config.hidden_size)
        self.head = nn.Linear(width, n_classes)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self._n_special = n_special
        layers = self.encoder.bert.encoder.layer
        n_frozen = frozen_layers if frozen_layers >= 0 else len(layers) + frozen_layers
        if not 0 <= n_frozen <= len(layers):
            raise EvaluationError(
                f"finetune.frozen_layers is {frozen_layers}, the model has {len(layers)} layers: "
                f"expected {-len(layers)} to {len(layers)}"
            )
        frozen = [self.encoder.cls, *(layers[:n_frozen])]
        if n_frozen:
            frozen.append(self.encoder.bert.embeddings)
        for part in frozen:
            part.requires_grad_(False)
        # The language model's head shares the word embeddings: those learn unless frozen above.
        self.encoder.bert.embeddings.requires_grad_(n_frozen == 0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def forward(self, pack: Pack) -> torch.Tensor:
        """Class logits of each cell of a pack. Shape (n_cells, k)."""
        return self.head((self.pooled(pack) - self.center) / self.scale)

    def pooled(self, pack: Pack) -> torch.Tensor:
        """The mean of each cell's last hidden states over its genes. Shape (n_cells, d)."""
        return mean_of_genes(self.encoder.hidden_states(pack), pack, self._n_special)

    def calibrate(self, packs: Sequence[Pack]) -> None:
        """Centre and scale the head's input by some cells."""
        self.eval()
        with torch.no_grad():
            states_cd = torch.cat([self.pooled(pack.to(self.device)) for pack in packs])
            self.center = states_cd.mean(dim=0)
            floor = LEAST_SPREAD * float(states_cd.square().mean().sqrt())
            self.scale = states_cd.std(dim=0).clamp_min(max(floor, 1e-6))


def finetune_and_predict(
    arrays: ModelArrays,
    train: TokenBatch,
    train_labels: NDArray[np.int64],
    test: TokenBatch,
    recipe: EvaluationRecipe,
    *,
    n_classes: int,
    seed: int,
) -> NDArray[np.float64]:
    """Fine-tune on some cells and name others.

    Args:
        arrays: the weights to begin with.
        train: cells to learn from, each with at least one gene.
        train_labels: their classes, 0 to n_classes - 1. Shape (n_train,).
        test: cells to name, each with at least one gene.
        recipe: layers frozen, epochs, steps, threads.
        n_classes: how many classes there are.
        seed: of the head's fresh weights, of dropout and of the order of cells.

    Returns:
        Class probabilities. Shape (n_test, n_classes).
    """
    with arithmetic_threads(recipe.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = CellClassifier(
            arrays.model(),
            n_classes=n_classes,
            n_special=arrays.n_special,
            frozen_layers=recipe.finetune.frozen_layers,
        )
        classifier.to("cuda" if torch.cuda.is_available() else "cpu")
        classifier.calibrate(pack_cells(train, _budget(train, recipe)))
        _learn(classifier, train, torch.from_numpy(train_labels), recipe, seed)
        classifier.eval()
        found = np.zeros((test.n_cells, n_classes))
        for pack in pack_cells(test, _budget(test, recipe)):
            with torch.inference_mode():
                logits_ck = classifier(pack.to(classifier.device)).double()
                probabilities_ck = functional.softmax(logits_ck, dim=-1).cpu()
            found[list(pack.rows)] = probabilities_ck.numpy()
    return found


def _learn(
    classifier: CellClassifier,
    train: TokenBatch,
    labels: torch.Tensor,
    recipe: EvaluationRecipe,
    seed: int,
) -> None:
    settings = recipe.finetune
    encoder = [weight for weight in classifier.encoder.parameters() if weight.requires_grad]
    head = list(classifier.head.parameters())
    learning = [*encoder, *head]
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder, "lr": settings.peak_lr},
            {"params": head, "lr": settings.head_lr},
        ],
        weight_decay=settings.weight_decay,
        fused=True,
    )
    per_epoch = -(-train.n_cells // settings.cells_per_step)
    n_steps = per_epoch * settings.epochs
    n_warmup = max(1, n_steps // 10)

    def rate(step: int) -> float:
        return min((step + 1) / n_warmup, (n_steps - step) / max(n_steps - n_warmup, 1), 1.0)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    draw = np.random.default_rng(seed)
    classifier.train()
    for _ in range(settings.epochs):
        order = draw.permutation(train.n_cells)
        for begin in range(0, train.n_cells, settings.cells_per_step):
            rows = order[begin : begin + settings.cells_per_step]
            optimizer.zero_grad()
            logits_ck = classifier(pack_of(train, rows.tolist()).to(classifier.device))
            wanted_c = labels[rows].to(classifier.device)
            functional.cross_entropy(logits_ck, wanted_c).backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()


def _budget(tokens: TokenBatch, recipe: EvaluationRecipe) -> int:
    return max(recipe.pack_tokens, int(tokens.lengths.max(initial=1)))
