"""Activations in two pieces that join at zero, where most are not differentiable.

relu and leaky_relu keep their output, which the next linear keeps anyway as its input. Where no other rule keeps it
(before a sum, a pool, a norm), they can keep a byte per element instead: residuals="mask". elu and selu keep their
input, from which the slope has every digit, or with residuals="save" the output, from which it has fewer below zero.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from handgrad.checks import check_array, check_choice, check_cotangent, check_positive, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide

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

Elements = Float[Array, "*shape"]
Mask = Bool[Array, "*shape"]
POLICIES = ("save", "mask")
EXPONENTIAL_POLICIES = ("recompute", "save")
SELU_ALPHA = 1.6732632423543772  # the fixed point of mean 0 and variance 1: Klambauer et al. 2017, appendix A1
SELU_SCALE = 1.0507009873554805


class ReluResiduals(NamedTuple):
    """One of the two; either gives the input's sign, which the slope depends on alone.

    Attributes:
      Y: output, where it was saved.
      mask: X > 0.
    """

    Y: Elements | None
    mask: Mask | None

    def compact(self) -> "ReluResiduals":
        """The mask alone, for whom it is not worth keeping Y: a loop that would stack it."""
        return self if self.Y is None else ReluResiduals(None, self.Y > 0)


def relu_forward(X: Elements, *, residuals: Literal["save", "mask"] = "save") -> tuple[Elements, ReluResiduals]:
    """Y = max(X, 0), element by element; NaN stays NaN.

    Args:
      residuals: "save" keeps Y, "mask" where X > 0.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    check_array("relu_forward", "X", X)
    check_choice("relu_forward", "residuals", residuals, POLICIES)
    Y = jnp.where(X <= 0, jnp.zeros_like(X), X)
    return Y, ReluResiduals(Y, None) if residuals == "save" else ReluResiduals(None, X > 0)


def relu_backward(residuals: ReluResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = max(X, 0), with relu′(0) = 0 as in jax.nn.relu.

        dX = dY ∘ [Y > 0]

    Derivation: docs/derivations/activations/rectifiers.md
    """
    Y, mask = check_residuals("relu_backward", residuals, ReluResiduals)
    mask = _checked("relu_backward", dY, Y, mask if Y is None else Y > 0)
    return (jnp.where(mask, dY, jnp.zeros_like(dY)),)


relu = Rule(relu_forward, relu_backward)


class LeakyReluResiduals(NamedTuple):
    """One of the two.

    Attributes:
      Y: output, where it was saved; its sign bit says whether the input was below zero, also where s X underflows to 0.
      mask: X < 0.
    """

    Y: Elements | None
    mask: Mask | None

    def compact(self) -> "LeakyReluResiduals":
        """The mask alone, as ReluResiduals'."""
        return self if self.Y is None else LeakyReluResiduals(None, jnp.signbit(self.Y))


def leaky_relu_forward(
    X: Elements, *, negative_slope: float = 0.01, residuals: Literal["save", "mask"] = "save"
) -> tuple[Elements, LeakyReluResiduals]:
    """Y = X where X ≥ 0, s X elsewhere.

    Args:
      negative_slope: s > 0, so that Y has the sign of X.
      residuals: "save" keeps Y, "mask" where X < 0.
    Derivation: docs/derivations/activations/rectifiers.md
    """
    check_array("leaky_relu_forward", "X", X)
    check_positive("leaky_relu_forward", "negative_slope", negative_slope)
    check_choice("leaky_relu_forward", "residuals", residuals, POLICIES)
    Y = jnp.where(X >= 0, jnp.abs(X), negative_slope * X)  # |X|, so that −0 becomes +0, whose sign bit is clear
    return Y, LeakyReluResiduals(Y, None) if residuals == "save" else LeakyReluResiduals(None, X < 0)


def leaky_relu_backward(
    residuals: LeakyReluResiduals, dY: Elements, *, negative_slope: float = 0.01
) -> tuple[Elements]:
    """Pull dY back through leaky_relu, with slope 1 at zero as in jax.nn.leaky_relu.

        dX = dY where Y ≥ 0, s dY elsewhere

    Derivation: docs/derivations/activations/rectifiers.md
    """
    Y, mask = check_residuals("leaky_relu_backward", residuals, LeakyReluResiduals)
    mask = _checked("leaky_relu_backward", dY, Y, mask if Y is None else jnp.signbit(Y))
    return (jnp.where(mask, negative_slope * dY, dY),)


leaky_relu = Rule(leaky_relu_forward, leaky_relu_backward)


class EluResiduals(NamedTuple):
    """X, the input, or Y, the output; the other is None. Below zero the slope is α eˣ = Y + α."""

    X: Elements | None
    Y: Elements | None


def elu_forward(
    X: Elements, *, alpha: float = 1.0, residuals: Literal["recompute", "save"] = "recompute"
) -> tuple[Elements, EluResiduals]:
    """Y = X where X > 0, α (eˣ − 1) elsewhere.

    Args:
      alpha: α > 0, so that Y has the sign of X.
      residuals: "recompute" keeps X; "save" keeps Y, nothing extra before a linear, but the slope is off by eps α.
    Derivation: docs/derivations/activations/rectifiers.md (Clevert et al. 2016)
    """
    check_array("elu_forward", "X", X)
    check_positive("elu_forward", "alpha", alpha)
    check_choice("elu_forward", "residuals", residuals, EXPONENTIAL_POLICIES)
    Y = _elu(X, 1.0, alpha)
    return Y, EluResiduals(X, None) if residuals == "recompute" else EluResiduals(None, Y)


def elu_backward(residuals: EluResiduals, dY: Elements, *, alpha: float = 1.0) -> tuple[Elements]:
    """Pull dY back through elu, with slope α at zero.

        dX = dY where X > 0, α dY ∘ eˣ elsewhere      α eˣ = Y + α

    Derivation: docs/derivations/activations/rectifiers.md
    """
    kept = check_residuals("elu_backward", residuals, EluResiduals)
    return (_pull_back("elu_backward", *kept, dY, 1.0, alpha),)


elu = Rule(elu_forward, elu_backward)


class SeluResiduals(NamedTuple):
    """X, the input, or Y, the output, as in EluResiduals; the other is None."""

    X: Elements | None
    Y: Elements | None


def selu_forward(
    X: Elements, *, residuals: Literal["recompute", "save"] = "recompute"
) -> tuple[Elements, SeluResiduals]:
    """Y = λ elu(X, α) with the self-normalizing constants λ = 1.0507…, α = 1.6732….

    Args:
      residuals: "recompute" keeps X, "save" keeps Y, as in elu_forward.
    Derivation: docs/derivations/activations/rectifiers.md (Klambauer et al. 2017)
    """
    check_array("selu_forward", "X", X)
    check_choice("selu_forward", "residuals", residuals, EXPONENTIAL_POLICIES)
    Y = _elu(X, SELU_SCALE, SELU_ALPHA)
    return Y, SeluResiduals(X, None) if residuals == "recompute" else SeluResiduals(None, Y)


def selu_backward(residuals: SeluResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through selu, with slope λα at zero.

        dX = λ dY where X > 0, λα dY ∘ eˣ elsewhere      λα eˣ = Y + λα

    Derivation: docs/derivations/activations/rectifiers.md
    """
    kept = check_residuals("selu_backward", residuals, SeluResiduals)
    return (_pull_back("selu_backward", *kept, dY, SELU_SCALE, SELU_ALPHA),)


selu = Rule(selu_forward, selu_backward)


def _elu(X: Elements, scale: float, alpha: float) -> Elements:
    (Xw,) = wide(X)  # no positive number reaches expm1, which can't overflow in the branch that `where` doesn't take
    return jnp.where(Xw > 0, scale * Xw, scale * alpha * jnp.expm1(jnp.where(Xw > 0, 0, Xw))).astype(X.dtype)


def _pull_back(
    where: str, X: Elements | None, Y: Elements | None, dY: Elements, scale: float, alpha: float
) -> Elements:
    kept = Y if X is None else X
    assert kept is not None
    check_cotangent(where, dY, kept.shape, kept.dtype)
    kept, dYw = wide(kept, dY)
    if X is None:
        return (dYw * jnp.where(kept > 0, scale, kept + scale * alpha)).astype(dY.dtype)
    root = jnp.exp(jnp.where(kept > 0, 0, kept) / 2)  # twice, so that λα eˣ is there where eˣ alone underflows
    return jnp.where(kept > 0, scale * dYw, scale * alpha * dYw * root * root).astype(dY.dtype)


def _checked(where: str, dY: Elements, Y: Elements | None, mask: Mask | None) -> Mask:
    """The mask, where dY is a cotangent of its shape and of Y's dtype; a mask that was kept doesn't know that."""
    assert mask is not None
    check_cotangent(where, dY, mask.shape, None if Y is None else Y.dtype)
    return mask
