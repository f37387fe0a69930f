"""Activations that bend at zero.

relu and leaky_relu keep their output, which the next linear keeps anyway as its input. Where nobody else keeps it
(before a sum, a pool, a norm), they can keep a byte per element instead: residuals="mask". elu and selu keep their
input, of which the slope has every digit, or with residuals="save" the output, of which it has less below zero.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_choice, check_cotangent, check_positive, check_residuals
from handgrad.rules._elementwise import wide
from handgrad.rules.rule import Rule

__all__ = [
    "EluResiduals",
    "LeakyReluResiduals",
    "ReluResiduals",
    "SeluResiduals",
    "elu",
    "elu_backward",
    "elu_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "relu",
    "relu_backward",
    "relu_forward",
    "selu",
    "selu_backward",
    "selu_forward",
]

Array = jax.Array

POLICIES = ("save", "mask")
EXPONENTIAL_POLICIES = ("recompute", "save")
SELU_ALPHA = 1.6732632423543772  # the fixed point of mean 0 and variance 1: Klambauer et al. 2017, appendix A1
SELU_SCALE = 1.0507009873554805


class ReluResiduals(NamedTuple):
    """One of the two; either tells the input's sign, which is all that the slope asks for.

    Attributes:
      Y: (batch, ...) output, where it was saved.
      mask: (batch, ...) booleans, X > 0.
    """

    Y: Any
    mask: Any


def relu_forward(X: Array, *, residuals: str = "save") -> tuple[Array, ReluResiduals]:
    """Y = max(X, 0), element by element; NaN stays NaN.

    Args:
      X: (batch, ...) floating point.
      residuals: "save" keeps Y, "mask" where X > 0.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    check_array("relu_forward", "X", X)
    check_choice("relu_forward", "residuals", residuals, POLICIES)
    Y = jnp.where(X <= 0, jnp.zeros_like(X), X)
    return Y, ReluResiduals(Y, None) if residuals == "save" else ReluResiduals(None, X > 0)


def relu_backward(residuals: ReluResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = max(X, 0), with relu′(0) = 0 as in jax.nn.relu.

        dX = dY ∘ [Y > 0]

    Args:
      residuals: ReluResiduals of relu_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    Y, mask = check_residuals("relu_backward", residuals, ReluResiduals)
    _check_cotangent("relu_backward", dY, Y, mask)
    return (jnp.where(Y > 0 if mask is None else mask, dY, jnp.zeros_like(dY)),)


relu = Rule(relu_forward, relu_backward)


class LeakyReluResiduals(NamedTuple):
    """One of the two.

    Attributes:
      Y: (batch, ...) output, where it was saved; its sign bit says whether the input was below zero, also where s X is
        too small but for 0.
      mask: (batch, ...) booleans, X < 0.
    """

    Y: Any
    mask: Any


def leaky_relu_forward(
    X: Array, *, negative_slope: float = 0.01, residuals: str = "save"
) -> tuple[Array, LeakyReluResiduals]:
    """Y = X where X ≥ 0, s X elsewhere.

    Args:
      X: (batch, ...) floating point.
      negative_slope: s > 0, so that Y has the sign of X.
      residuals: "save" keeps Y, "mask" where X < 0.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; s is not positive; residuals is neither of the two.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    check_array("leaky_relu_forward", "X", X)
    check_positive("leaky_relu_forward", "negative_slope", negative_slope)
    check_choice("leaky_relu_forward", "residuals", residuals, POLICIES)
    Y = jnp.where(X >= 0, jnp.abs(X), negative_slope * X)  # |X|, so that −0 leaves with the sign bit of +0
    return Y, LeakyReluResiduals(Y, None) if residuals == "save" else LeakyReluResiduals(None, X < 0)


def leaky_relu_backward(residuals: LeakyReluResiduals, dY: Array, *, negative_slope: float = 0.01) -> tuple[Array]:
    """Pull dY back through leaky_relu, with slope 1 at zero as in jax.nn.leaky_relu.

        dX = dY where Y ≥ 0, s dY elsewhere

    Args:
      residuals: LeakyReluResiduals of leaky_relu_forward.
      dY: like X, cotangent of Y.
      negative_slope: s, the forward's.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    Y, mask = check_residuals("leaky_relu_backward", residuals, LeakyReluResiduals)
    _check_cotangent("leaky_relu_backward", dY, Y, mask)
    return (jnp.where(jnp.signbit(Y) if mask is None else mask, negative_slope * dY, dY),)


leaky_relu = Rule(leaky_relu_forward, leaky_relu_backward)


class EluResiduals(NamedTuple):
    """X: (batch, ...) input, or Y: (batch, ...) output; the other is None. Below zero the slope is α eˣ = Y + α."""

    X: Any
    Y: Any


def elu_forward(X: Array, *, alpha: float = 1.0, residuals: str = "recompute") -> tuple[Array, EluResiduals]:
    """Y = X where X > 0, α (eˣ − 1) elsewhere.

    Args:
      X: (batch, ...) floating point.
      alpha: α > 0, so that Y has the sign of X.
      residuals: "recompute" keeps X; "save" keeps Y, nothing extra before a linear, but the slope is off by eps α.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; α is not positive; residuals is neither of the two.
    Derivation: docs/derivations/activations/rectifiers.md (Clevert et al. 2016)
    """
    check_array("elu_forward", "X", X)
    check_positive("elu_forward", "alpha", alpha)
    check_choice("elu_forward", "residuals", residuals, EXPONENTIAL_POLICIES)
    Y = _elu(X, 1.0, alpha)
    return Y, EluResiduals(X, None) if residuals == "recompute" else EluResiduals(None, Y)


def elu_backward(residuals: EluResiduals, dY: Array, *, alpha: float = 1.0) -> tuple[Array]:
    """Pull dY back through elu, with slope α at zero.

        dX = dY where X > 0, α dY ∘ eˣ elsewhere      α eˣ = Y + α

    Args:
      residuals: EluResiduals of elu_forward.
      dY: like X, cotangent of Y.
      alpha: α, the forward's.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    kept = check_residuals("elu_backward", residuals, EluResiduals)
    return (_pull_back("elu_backward", *kept, dY, 1.0, alpha),)


elu = Rule(elu_forward, elu_backward)


class SeluResiduals(NamedTuple):
    """X: (batch, ...) input, or Y: (batch, ...) output, as in EluResiduals; the other is None."""

    X: Any
    Y: Any


def selu_forward(X: Array, *, residuals: str = "recompute") -> tuple[Array, SeluResiduals]:
    """Y = λ elu(X, α) with the self-normalizing constants λ = 1.0507…, α = 1.6732….

    Args:
      X: (batch, ...) floating point.
      residuals: "recompute" keeps X, "save" keeps Y, as in elu_forward.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/activations/rectifiers.md (Klambauer et al. 2017)
    """
    check_array("selu_forward", "X", X)
    check_choice("selu_forward", "residuals", residuals, EXPONENTIAL_POLICIES)
    Y = _elu(X, SELU_SCALE, SELU_ALPHA)
    return Y, SeluResiduals(X, None) if residuals == "recompute" else SeluResiduals(None, Y)


def selu_backward(residuals: SeluResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through selu, with slope λα at zero.

        dX = λ dY where X > 0, λα dY ∘ eˣ elsewhere      λα eˣ = Y + λα

    Args:
      residuals: SeluResiduals of selu_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    kept = check_residuals("selu_backward", residuals, SeluResiduals)
    return (_pull_back("selu_backward", *kept, dY, SELU_SCALE, SELU_ALPHA),)


selu = Rule(selu_forward, selu_backward)


def _elu(X: Array, scale: float, alpha: float) -> Array:
    Xw = wide(X)  # and expm1 sees no positive number: it can't overflow in the branch that `where` doesn't take
    return jnp.where(Xw > 0, scale * Xw, scale * alpha * jnp.expm1(jnp.where(Xw > 0, 0, Xw))).astype(X.dtype)


def _pull_back(where: str, X: Any, Y: Any, dY: Array, scale: float, alpha: float) -> Array:
    kept = Y if X is None else X
    check_cotangent(where, dY, kept.shape, kept.dtype)
    kept, dY = wide(kept), wide(dY)
    if X is None:
        return (dY * jnp.where(kept > 0, scale, kept + scale * alpha)).astype(Y.dtype)
    root = jnp.exp(jnp.where(kept > 0, 0, kept) / 2)  # twice, so that λα eˣ is there where eˣ alone underflows
    return jnp.where(kept > 0, scale * dY, scale * alpha * dY * root * root).astype(X.dtype)


def _check_cotangent(where: str, dY: Array, Y: Any, mask: Any) -> None:
    """A mask doesn't know Y's dtype."""
    kept, dtype = (mask, None) if Y is None else (Y, Y.dtype)
    check_cotangent(where, dY, kept.shape, dtype)
