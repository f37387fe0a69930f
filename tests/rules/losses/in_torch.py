"""What the tests of losses against PyTorch share: numbers, and its losses as one for each example."""

from typing import Any

import numpy as np
from in_torch import LARGE as LARGE, F, assert_rules_agree, torch

from handgrad import rules

RNG = np.random.default_rng(0)
SHAPE = BATCH, TOKENS, N = 4, 3, 5
Z, NUMBERS = RNG.standard_normal((2, *SHAPE)) * 2
PROBABILITIES = RNG.uniform(0, 1, SHAPE)
BITS = RNG.integers(0, 2, SHAPE)
DISTRIBUTIONS = RNG.dirichlet(np.ones(N), SHAPE[:2])


def assert_torchs(*rows: Any, bar: float = 1e-12) -> None:
    """Rows of (rule, the loss in PyTorch, *arguments), the rule's options last if it has any."""
    options = [row[-1] if isinstance(row[-1], dict) else {} for row in rows]
    arguments = [[a for a in row[2:] if not isinstance(a, dict)] for row in rows]
    each = [getattr(rules, op).with_options(**of) for (op, *_), of in zip(rows, options, strict=True)]
    assert_rules_agree(list(zip(each, (row[1] for row in rows), arguments, strict=True)), bar)


def summed(C: Any) -> Any:
    """Each example's sum."""
    return C.reshape(len(C), -1).sum(1)


def elementwise(function: Any, **options: Any) -> Any:
    """A function of torch.nn.functional as a loss for each example."""
    return lambda prediction, target: summed(function(prediction, target, reduction="none", **options))


def cross_entropy(z: Any, y: Any, weight: Any = None, **options: Any) -> Any:
    """F.cross_entropy has the classes behind the batch."""
    y = y if y.ndim < z.ndim else y.movedim(-1, 1)
    return summed(F.cross_entropy(z.movedim(-1, 1), y, weight, reduction="none", **options))


def with_extras(z: Any, y: Any, z_loss: float = 0.0, softcap: float | None = None, **options: Any) -> Any:
    s = z if softcap is None else softcap * torch.tanh(z / softcap)
    counts = y != options.get("ignore_index", -100)
    return cross_entropy(s, y, **options) + z_loss * summed(counts * torch.logsumexp(s, -1) ** 2)


EXTRAS = (
    {"z_loss": 0.1},
    {"softcap": 2.0},
    {"label_smoothing": 0.2, "z_loss": 0.1, "softcap": 3.0, "ignore_index": -100},
)
