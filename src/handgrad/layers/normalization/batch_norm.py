"""Batch norm for training and for inference, and the statistics that go from one to the other."""

from typing import Literal, NamedTuple

import jax
from jaxtyping import Array, Float, PyTree

from handgrad import rules
from handgrad.factors import Hadamard, Total
from handgrad.layers.layer import Layer
from handgrad.layers.normalization._norm import norm
from handgrad.rule import Rule

__all__ = ["BatchStatistics", "batch_norm", "batch_norm_inference", "batch_statistics"]

Rows = Float[Array, "batch *rest n"]
Features = Float[Array, " n"]
COUPLING = "batch_norm couples the examples of a batch (layer_norm, group_norm and batch_norm_inference do not)"


class BatchStatistics(NamedTuple):
    """The statistics of one batch norm, of a batch or as running averages.

    Attributes:
      mean: (n,) of each feature.
      variance: (n,) of each feature, divided by the number of rows.
    """

    mean: Array
    variance: Array


def batch_norm(
    *, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: Literal["save", "recompute"] = "save"
) -> Layer:
    """Every feature to mean 0 and variance 1 over all rows of the batch, then γ and β: NormParams(gamma, beta).

    The examples interact here. Gradients are right, but in and before this layer per-example gradients, and weights
    given to factors afterwards, are meaningless: `value_and_factors` returns Coupled factors there, which refuse them.
    The batch's statistics are in the residuals: `batch_statistics`.

    Args:
      eps, scale, shift, residuals: as layer_norm's.
    Derivation: docs/derivations/normalization/batch_norm.md
    """
    return norm(rules.batch_norm.with_options(eps=eps, residuals=residuals), scale, shift, couples=COUPLING)


def batch_norm_inference(
    mean: Features, variance: Features, *, eps: float = 1e-5, scale: bool = True, shift: bool = True
) -> Layer:
    """The same with given statistics: the rows are independent. Parameters are those of `batch_norm`.

    Args:
      mean, variance: running averages; no parameters, they get no gradient.
      eps, scale, shift: as the `batch_norm` whose parameters these are.
    Derivation: docs/derivations/normalization/batch_norm.md
    """

    def forward(x: Rows, gamma: Features | None, beta: Features | None) -> tuple[Rows, PyTree]:
        return rules.batch_norm_inference_forward(x, gamma, beta, mean, variance, eps=eps)

    def backward(kept: PyTree, dy: Rows) -> tuple[Rows, Hadamard | None, Total | None]:
        return rules.batch_norm_inference_backward(kept, dy, eps=eps)[:3]

    return norm(Rule(forward, backward), scale, shift, name="batch_norm_inference")


def batch_statistics(residuals: PyTree) -> tuple[BatchStatistics, ...]:
    """The statistics of every `batch_norm` of a model, in the order of the forward pass.

    Args:
      residuals: of the model's forward pass, or of one layer's. Under `repeat` the statistics are stacked.
    """
    found = jax.tree.leaves(residuals, is_leaf=_is_batch_norm)
    return tuple(BatchStatistics(one.mean, one.variance) for one in found if _is_batch_norm(one))


def _is_batch_norm(node: PyTree) -> bool:
    return isinstance(node, rules.BatchNormResiduals)
