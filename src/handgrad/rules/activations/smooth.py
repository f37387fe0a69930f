"""Smooth monotone activations, element by element. Each keeps its output: the slope is a short function of it.

Where the output of sigmoid or tanh rounds to 1, it tells nothing of the slope; residuals="recompute" keeps the input,
which does. Values and slopes are computed in float32 at least and rounded once.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_choice, check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide

__all__ = [
    "IdentityResiduals",
    "SigmoidResiduals",
    "SoftplusResiduals",
    "TanhResiduals",
    "identity",
    "identity_backward",
    "identity_forward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "softplus",
    "softplus_backward",
    "softplus_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
]

Elements = Float[Array, "*shape"]
Policy = Literal["save", "recompute"]
POLICIES = ("save", "recompute")


class IdentityResiduals(NamedTuple):
    """Y: the output, for its shape and dtype alone: its values are never read."""

    Y: Elements


def identity_forward(X: Elements) -> tuple[Elements, IdentityResiduals]:
    """Y = X.

    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("identity_forward", "X", X)
    return X, IdentityResiduals(X)


def identity_backward(residuals: IdentityResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = X.

        dX = dY

    Derivation: docs/derivations/activations/smooth.md
    """
    (Y,) = check_residuals("identity_backward", residuals, IdentityResiduals)
    check_cotangent("identity_backward", dY, Y.shape, Y.dtype)
    return (dY,)


identity = Rule(identity_forward, identity_backward)


class SigmoidResiduals(NamedTuple):
    """One of the two.

    Attributes:
      Y: output, where it was saved: the slope is Y (1 − Y).
      X: input, where the slope is recomputed, σ(X) σ(−X).
    """

    Y: Elements | None
    X: Elements | None


def sigmoid_forward(X: Elements, *, residuals: Policy = "save") -> tuple[Elements, SigmoidResiduals]:
    """Y = 1 / (1 + e⁻ˣ), without overflow for any X.

    Args:
      residuals: "save" keeps Y, which costs nothing before a linear, but whose slope is off by a rounding of Y, as in
        JAX and PyTorch; "recompute" keeps X, whose slope has every digit.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("sigmoid_forward", "X", X)
    check_choice("sigmoid_forward", "residuals", residuals, POLICIES)
    Y = jax.lax.logistic(*wide(X)).astype(X.dtype)
    return Y, SigmoidResiduals(Y, None) if residuals == "save" else SigmoidResiduals(None, X)


def sigmoid_backward(residuals: SigmoidResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = σ(X).

        dX = dY ∘ Y ∘ (1 − Y) = dY ∘ σ(X) ∘ σ(−X)

    Derivation: docs/derivations/activations/smooth.md
    """
    Y, X = check_residuals("sigmoid_backward", residuals, SigmoidResiduals)
    kept = _kept("sigmoid_backward", Y, X, dY)
    S, complement = sigmoids(kept) if Y is None else (kept, 1 - kept)
    return ((dY * S * complement).astype(dY.dtype),)


sigmoid = Rule(sigmoid_forward, sigmoid_backward)


class TanhResiduals(NamedTuple):
    """One of the two.

    Attributes:
      Y: output, where it was saved: the slope is 1 − Y².
      X: input, where the slope is recomputed, 4 σ(2X) σ(−2X).
    """

    Y: Elements | None
    X: Elements | None


def tanh_forward(X: Elements, *, residuals: Policy = "save") -> tuple[Elements, TanhResiduals]:
    """Y = tanh(X).

    Args:
      residuals: "save" keeps Y, "recompute" keeps X, as in sigmoid_forward.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("tanh_forward", "X", X)
    check_choice("tanh_forward", "residuals", residuals, POLICIES)
    Y = jnp.tanh(*wide(X)).astype(X.dtype)
    return Y, TanhResiduals(Y, None) if residuals == "save" else TanhResiduals(None, X)


def tanh_backward(residuals: TanhResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = tanh(X).

        dX = dY ∘ (1 − Y) ∘ (1 + Y) = 4 dY ∘ σ(2X) ∘ σ(−2X)

    Derivation: docs/derivations/activations/smooth.md
    """
    Y, X = check_residuals("tanh_backward", residuals, TanhResiduals)
    kept = _kept("tanh_backward", Y, X, dY)
    one, other = (2 * S for S in sigmoids(2 * kept)) if Y is None else (1 + kept, 1 - kept)
    return ((dY * one * other).astype(dY.dtype),)


tanh = Rule(tanh_forward, tanh_backward)


class SoftplusResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: input, where the slope σ(X) is recomputed.
      Y: output, where it was saved: the slope is 1 − e⁻ʸ.
    """

    X: Elements | None
    Y: Elements | None


def softplus_forward(X: Elements, *, residuals: Policy = "recompute") -> tuple[Elements, SoftplusResiduals]:
    """Y = log(1 + eˣ), without overflow for any X.

    Args:
      residuals: "recompute" keeps X; "save" keeps Y, nothing extra before a linear, and takes twice the time.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("softplus_forward", "X", X)
    check_choice("softplus_forward", "residuals", residuals, POLICIES)
    (Xw,) = wide(X)
    below = Xw < 0  # not a maximum and |x|, whose slopes at 0 autodiff would have add up to 0
    Y = (jnp.where(below, 0, Xw) + jnp.log1p(jnp.exp(jnp.where(below, Xw, -Xw)))).astype(X.dtype)
    return Y, SoftplusResiduals(X, None) if residuals == "recompute" else SoftplusResiduals(None, Y)


def softplus_backward(residuals: SoftplusResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = log(1 + eˣ).

        dX = dY ∘ σ(X) = dY ∘ (1 − e⁻ʸ)

    Derivation: docs/derivations/activations/smooth.md
    """
    X, Y = check_residuals("softplus_backward", residuals, SoftplusResiduals)
    kept = _kept("softplus_backward", Y, X, dY)
    slope = sigmoids(kept)[0] if Y is None else one_minus_exp(kept)
    return ((dY * slope).astype(dY.dtype),)


softplus = Rule(softplus_forward, softplus_backward)


def one_minus_exp(Y: Elements) -> Elements:
    """1 − e⁻ʸ for y ≥ 0, in half of expm1's time: a difference, or where it would lose digits the series
    y (1 − y/2 (1 − y/3 (1 − …)))."""
    small, series = jnp.minimum(Y, 0.35), jnp.ones_like(Y)
    for k in range(7 if Y.dtype == jnp.float32 else 13, 1, -1):
        series = 1 - small * (1 / k) * series
    return jnp.where(Y < 0.35, small * series, 1 - jnp.exp(-Y))


def sigmoids(X: Elements) -> tuple[Elements, Elements]:
    """σ(x) and σ(−x), which 1 − σ(x) would round to 0 for a large x, from one exponential, which never overflows."""
    E = jnp.exp(jnp.where(X < 0, X, -X))  # with a slope at 0, which a minimum would split in two halves
    share = 1 / (1 + E)
    return jnp.where(X < 0, E, 1) * share, jnp.where(X < 0, 1, E) * share


def _kept(where: str, Y: Elements | None, X: Elements | None, dY: Elements) -> Elements:
    """Y or X, whichever was kept, in float32 at least; dY is checked against it."""
    kept = X if Y is None else Y
    assert kept is not None
    check_cotangent(where, dY, kept.shape, kept.dtype)
    (kept,) = wide(kept)
    return kept
