"""Batch norm for training and for inference, and the statistics that go from one to the other."""

from typing import Any, NamedTuple

import jax

from handgrad import rules
from handgrad.factors import Coupled, Stacked, is_factor
from handgrad.layers.layer import Layer
from handgrad.layers.normalisation import norm

__all__ = [
    "BatchStatistics",
    "batch_norm",
    "batch_norm_inference",
    "batch_statistics",
]

Array = jax.Array


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

    The examples meet here. Gradients are right, but per-example gradients, and weights given to factors afterwards,
    mean nothing: `value_and_factors` returns Coupled factors, which refuse them. The batch's statistics are in the
    residuals: `batch_statistics`.

    Args:
      eps: positive number, added to the variance.
      scale: False leaves gamma away.
      shift: False leaves beta away.
      residuals: "save" keeps the normalised input, "recompute" the input.
    Raises:
      InputError: at trace time, params of another layer, and as batch_norm_forward and batch_norm_backward.
    Derivation: docs/derivations/batch_norm.md
    """
    return norm(rules.batch_norm_forward, rules.batch_norm_backward, scale, shift, eps=eps, residuals=residuals)


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
    Derivation: docs/derivations/batch_norm.md
    """

    def forward(x: Array, gamma: Array | None, beta: Array | None, **options: Any) -> tuple[Array, Any]:
        return rules.batch_norm_inference_forward(x, gamma, beta, mean, variance, **options)

    def backward(kept: Any, dy: Array, **options: Any) -> tuple[Any, ...]:
        return rules.batch_norm_inference_backward(kept, dy, **options)[:3]

    return norm(forward, backward, scale, shift, name="batch_norm_inference", eps=eps)


def batch_statistics(residuals: Any) -> tuple[BatchStatistics, ...]:
    """What every `batch_norm` of a model saw of a batch, in the order of the forward pass.

    Args:
      residuals: of the model's forward pass, or of one layer's. Under `repeat` the statistics are stacked.
    Returns:
      One BatchStatistics for each batch norm.
    """
    found = jax.tree.leaves(residuals, is_leaf=_is_batch_norm)
    return tuple(BatchStatistics(one.mean, one.variance) for one in found if _is_batch_norm(one))


def coupled(residuals: Any, dparams: Any) -> Any:
    """dparams, as Coupled factors where a batch norm is among the residuals or was inside a layer that said so."""
    factors = [d for d in jax.tree.leaves(dparams, is_leaf=is_factor) if is_factor(d)]
    if not batch_statistics(residuals) and not any(_is_coupled(factor) for factor in factors):
        return dparams
    return jax.tree.map(lambda d: Coupled(d, "batch_norm") if is_factor(d) else d, dparams, is_leaf=is_factor)


def _is_coupled(factor: Any) -> bool:
    return isinstance(factor, Coupled) or (isinstance(factor, Stacked) and _is_coupled(factor.factor))


def _is_batch_norm(node: Any) -> bool:
    return isinstance(node, rules.BatchNormResiduals)
