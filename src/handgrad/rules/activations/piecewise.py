"""Activations that are a polynomial piece by piece: a rectifier with a learned slope, a squared one, and cheap gates.

Their slopes are short functions of the input, which prelu, hard_swish and squared_relu keep; hard_sigmoid keeps a byte
per element. Values and slopes are computed in float32 at least and rounded once.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from handgrad.checks import InputError, as_row, check_array, check_choice, check_cotangent, check_residuals, describe
from handgrad.factors import Hadamard
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules._wide import wide

__all__ = [
    "HardSigmoidResiduals",
    "HardSwishResiduals",
    "PreluResiduals",
    "SquaredReluResiduals",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_sigmoid_forward",
    "hard_swish",
    "hard_swish_backward",
    "hard_swish_forward",
    "prelu",
    "prelu_backward",
    "prelu_forward",
    "squared_relu",
    "squared_relu_backward",
    "squared_relu_forward",
]

Elements = Float[Array, "*shape"]
Rows = Float[Array, "batch *rest n"]


class PreluResiduals(NamedTuple):
    """X, the input: below zero it is one side of ds; s, the slopes, by reference."""

    X: Rows
    s: Float[Array, " slopes"]


def prelu_forward(X: Rows, s: Float[Array, " slopes"]) -> tuple[Rows, PreluResiduals]:
    """Y = X where X ≥ 0, X ∘ 1 sᵀ elsewhere, in X's and s's promoted dtype.

    Args:
      s: (n,) a slope for each feature, or (1,) one for all; of any size and sign.
    Derivation: docs/derivations/activations/piecewise.md (He et al. 2015)
    """
    check_array("prelu_forward", "X", X, min_ndim=2)
    check_array("prelu_forward", "s", s)
    if tuple(s.shape) not in ((1,), (X.shape[-1],)):
        raise InputError(f"prelu_forward: s must have shape ({X.shape[-1]},) or (1,), got {describe(s)}")
    Y = jnp.where(X >= 0, X, as_row(s, X.ndim) * X)
    return Y.astype(jnp.result_type(X, s)), PreluResiduals(X, s)


def prelu_backward(residuals: PreluResiduals, dY: Rows) -> tuple[Rows, Hadamard]:
    """Pull dY back through prelu, with slope 1 at zero as in leaky_relu.

        dX = dY where X ≥ 0, dY ∘ 1 sᵀ elsewhere        ds = (min(X, 0) ∘ dY)ᵀ 1

    Derivation: docs/derivations/activations/piecewise.md
    """
    X, s = check_residuals("prelu_backward", residuals, PreluResiduals)
    check_cotangent("prelu_backward", dY, X.shape, jnp.result_type(X, s))
    dX = jnp.where(X >= 0, dY, as_row(s, X.ndim) * dY).astype(X.dtype)
    below = jnp.where(X >= 0, jnp.zeros_like(X), X)
    if s.shape != X.shape[-1:]:  # one slope for all: every element is a token of it
        below, dY = jnp.expand_dims(below, -1), jnp.expand_dims(dY, -1)
    return dX, Hadamard(below, dY, s.dtype)


prelu = Rule(prelu_forward, prelu_backward)


class SquaredReluResiduals(NamedTuple):
    """X, the input: of Y the root would be taken, where a small square has underflowed."""

    X: Elements


def squared_relu_forward(X: Elements) -> tuple[Elements, SquaredReluResiduals]:
    """Y = max(X, 0)², element by element; NaN stays NaN.

    Derivation: docs/derivations/activations/piecewise.md (So et al. 2021)
    """
    check_array("squared_relu_forward", "X", X)
    R = jnp.where(X <= 0, jnp.zeros_like(X), X)
    return R * R, SquaredReluResiduals(X)


def squared_relu_backward(residuals: SquaredReluResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = max(X, 0)²; the slope is continuous, 0 at zero.

        dX = 2 dY ∘ max(X, 0)

    Derivation: docs/derivations/activations/piecewise.md
    """
    (X,) = check_residuals("squared_relu_backward", residuals, SquaredReluResiduals)
    check_cotangent("squared_relu_backward", dY, X.shape, X.dtype)
    return (jnp.where(X > 0, dY * (2 * X), jnp.zeros_like(dY)),)  # 2 dY may overflow where this fits


squared_relu = Rule(squared_relu_forward, squared_relu_backward)


class HardSigmoidResiduals(NamedTuple):
    """What says where the slope is 1/6, and X's shape and dtype.

    Attributes:
      halves: 2 inside of −3 < x < 3, 1 at the two kinks, 0 beyond: a byte per element.
      outline: of no byte.
    """

    halves: UInt[Array, "*shape"]
    outline: Float[Array, "..."]


def hard_sigmoid_forward(X: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch ..."], HardSigmoidResiduals]:
    """Y = (X + 3) / 6, 0 below −3 and 1 above 3.

    Derivation: docs/derivations/activations/piecewise.md (Courbariaux et al. 2015; Howard et al. 2019)
    """
    check_array("hard_sigmoid_forward", "X", X, min_ndim=1)
    return _gate(X).astype(X.dtype), HardSigmoidResiduals(_halves(X), outline(X))


def hard_sigmoid_backward(
    residuals: HardSigmoidResiduals, dY: Float[Array, "batch ..."]
) -> tuple[Float[Array, "batch ..."]]:
    """Pull dY back through hard_sigmoid; at ±3 half the slope, as in jax.nn.hard_sigmoid.

        dX = dY / 6 where −3 < X < 3, dY / 12 at ±3, 0 beyond

    Derivation: docs/derivations/activations/piecewise.md
    """
    halves, empty = check_residuals("hard_sigmoid_backward", residuals, HardSigmoidResiduals)
    X = outlined(empty)
    check_cotangent("hard_sigmoid_backward", dY, X.shape, X.dtype)
    (dYw,) = wide(dY)
    return ((dYw * halves.astype(dYw.dtype) / 12).astype(X.dtype),)


hard_sigmoid = Rule(hard_sigmoid_forward, hard_sigmoid_backward)


class HardSwishResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: input, where the slope is recomputed.
      slope: dY/dX, where it was saved.
    """

    X: Elements | None
    slope: Elements | None


def hard_swish_forward(
    X: Elements, *, residuals: Literal["recompute", "save"] = "recompute"
) -> tuple[Elements, HardSwishResiduals]:
    """Y = X ∘ hard_sigmoid(X): 0 below −3, X (X + 3) / 6, X above 3.

    Args:
      residuals: "recompute" keeps X, "save" the slope.
    Derivation: docs/derivations/activations/piecewise.md (Howard et al. 2019)
    """
    check_array("hard_swish_forward", "X", X)
    check_choice("hard_swish_forward", "residuals", residuals, ("recompute", "save"))
    (Xw,) = wide(X)
    Y = jnp.where(Xw < -3, 0, Xw * _gate(Xw)).astype(X.dtype)  # −∞ too, whose product with 0 would be NaN
    return Y, HardSwishResiduals(X, None) if residuals == "recompute" else HardSwishResiduals(None, _swish_slope(X))


def hard_swish_backward(residuals: HardSwishResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = X ∘ hard_sigmoid(X); at ±3 the mean of both slopes, as in jax.nn.hard_swish.

        dX = 0 below −3, dY ∘ (2 X + 3) / 6, dY above 3        −dY / 4 and 5 dY / 4 at the kinks

    Derivation: docs/derivations/activations/piecewise.md
    """
    X, slope = check_residuals("hard_swish_backward", residuals, HardSwishResiduals)
    if X is not None:
        slope = _swish_slope(X)
    assert slope is not None
    check_cotangent("hard_swish_backward", dY, slope.shape, slope.dtype)
    return (dY * slope,)


hard_swish = Rule(hard_swish_forward, hard_swish_backward)


def _gate(X: Elements) -> Elements:
    """hard_sigmoid in float32 at least."""
    (Xw,) = wide(X)
    return (jnp.clip(Xw, -3, 3) + 3) / 6


def _halves(X: Elements) -> UInt[Array, "*shape"]:
    """The slope of the gate, in twelfths."""
    return (jnp.abs(X) < 3).astype(jnp.uint8) + (jnp.abs(X) <= 3).astype(jnp.uint8)


def _swish_slope(X: Elements) -> Elements:
    """(2x + 3) / 6 between the kinks: one rounding where it goes through 0, at −3/2."""
    (Xw,) = wide(X)
    beyond = jnp.where(jnp.abs(Xw) == 3, Xw / 4 + 0.5, Xw > 3)
    return jnp.where(jnp.abs(Xw) < 3, (2 * Xw + 3) / 6, beyond).astype(X.dtype)
