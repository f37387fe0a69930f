"""Batch norm for training and for inference, and the statistics that go from one to the other."""

from typing import Any, NamedTuple

import jax

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.normalization.normalization import norm
from handgrad.rules.rule import Rule

__all__ = [
    "BatchStatistics",
    "batch_norm",
    "batch_norm_inference",
    "batch_statistics",
]

Array = jax.Array

COUPLING = "batch_norm couples the examples of a batch (layer_norm, group_norm and batch_norm_inference do not)"


class BatchStatistics(NamedTuple):
    """What a batch norm saw, or what running averages made of it.

    Attributes:
      mean: (n,) of each feature.
      variance: (n,) of each feature, divided by the number of rows.
    """

    mean: Any
    variance: Any


def batch_norm(*, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: str = "save") -> Layer:
    """Every feature to mean 0 and variance 1 over all rows of the batch, then γ and β: NormParams(gamma, beta).

    The examples meet here. Gradients are right, but in and before this layer per-example gradients, and weights given
    to factors afterwards, mean nothing: `value_and_factors` returns Coupled factors there, which refuse them. The
    batch's statistics are in the residuals: `batch_statistics`.

    Args:
      eps: positive number, added to the variance.
      scale: False leaves gamma away.
      shift: False leaves beta away.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Raises:
      InputError: at trace time, params of another layer, and as batch_norm_forward and batch_norm_backward.
    Derivation: docs/derivations/normalization/batch_norm.md
    """
    options = {"eps": eps, "residuals": residuals}
    layer = norm(rules.batch_norm, scale, shift, **options)
    return Layer(layer.init, layer.forward, layer.backward, COUPLING)


def batch_norm_inference(
    mean: Array, variance: Array, *, eps: float = 1e-5, scale: bool = True, shift: bool = True
) -> Layer:
    """The same with given statistics: every row goes its own way. Parameters are those of `batch_norm`.

    Args:
      mean, variance: (n,) running averages; no parameters, they get no gradient.
      eps, scale, shift: as the `batch_norm` whose parameters these are.
    Raises:
      InputError: at trace time, params of another layer, and as batch_norm_inference_forward and
        batch_norm_inference_backward.
    Derivation: docs/derivations/normalization/batch_norm.md
    """

    def forward(x: Array, gamma: Array | None, beta: Array | None, **options: Any) -> tuple[Array, Any]:
        return rules.batch_norm_inference_forward(x, gamma, beta, mean, variance, **options)

    def backward(kept: Any, dy: Array, **options: Any) -> tuple[Any, ...]:
        return rules.batch_norm_inference_backward(kept, dy, **options)[:3]

    return norm(Rule(forward, backward), scale, shift, name="batch_norm_inference", eps=eps)


def batch_statistics(residuals: Any) -> tuple[BatchStatistics, ...]:
    """What every `batch_norm` of a model saw of a batch, in the order of the forward pass.

    Args:
      residuals: of the model's forward pass, or of one layer's. Under `repeat` the statistics are stacked.
    Returns:
      One BatchStatistics for each batch norm.
    """
    found = jax.tree.leaves(residuals, is_leaf=_is_batch_norm)
    return tuple(BatchStatistics(one.mean, one.variance) for one in found if _is_batch_norm(one))


def _is_batch_norm(node: Any) -> bool:
    return isinstance(node, rules.BatchNormResiduals)
