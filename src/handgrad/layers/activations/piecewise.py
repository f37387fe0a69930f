"""Piecewise activations as layers: prelu with its slopes, the others the rule of the same name."""

from typing import Literal, NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad import rules
from handgrad.checks import check_array, check_params, check_shape
from handgrad.layers.layer import Layer, from_rule

__all__ = ["PreluParams", "hard_sigmoid", "hard_swish", "prelu", "squared_relu"]

Initializer = jax.nn.initializers.Initializer
Rows = Float[Array, "batch *rest n"]


class PreluParams(NamedTuple):
    """Parameters of `prelu`.

    Attributes:
      s: (n,) the slope of each feature below zero, or (1,) of all.
    """

    s: Array


def prelu(*, per_feature: bool = True, init_s: Initializer = jax.nn.initializers.constant(0.25)) -> Layer:
    """Y = X where X ≥ 0, X ∘ 1 sᵀ elsewhere, with parameters PreluParams(s).

    Args:
      per_feature: True learns a slope for each feature, False one for all.
      init_s: initializer, (key, shape, dtype) -> array; s gets the dtype of `init`'s x.
    Derivation: docs/derivations/activations/piecewise.md (He et al. 2015)
    """

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> PreluParams:
        check_array("prelu", "x", x, min_ndim=2)
        return PreluParams(init_s(key, (x.shape[-1] if per_feature else 1,), jax.dtypes.canonicalize_dtype(x.dtype)))

    def forward(params: PreluParams, x: Rows, key: PRNGKeyArray | None = None) -> tuple[Rows, rules.PreluResiduals]:
        check_params("prelu", params, PreluParams)
        check_array("prelu", "x", x, min_ndim=2)
        check_shape("prelu", "params.s", params.s, (x.shape[-1] if per_feature else 1,))
        return rules.prelu_forward(x, params.s)

    def backward(residuals: rules.PreluResiduals, dy: Rows) -> tuple[Rows, PreluParams]:
        dx, ds = rules.prelu_backward(residuals, dy)
        return dx, PreluParams._make((ds,))

    return Layer(init, forward, backward)


def squared_relu() -> Layer:
    """Y = max(X, 0)²."""
    return from_rule(rules.squared_relu)


def hard_sigmoid() -> Layer:
    """Y = (X + 3) / 6, 0 below −3 and 1 above 3."""
    return from_rule(rules.hard_sigmoid)


def hard_swish(*, residuals: Literal["recompute", "save"] = "recompute") -> Layer:
    """Y = X ∘ hard_sigmoid(X)."""
    return from_rule(rules.hard_swish, residuals=residuals)
