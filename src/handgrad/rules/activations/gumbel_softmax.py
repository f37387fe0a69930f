"""Gumbel-softmax: a draw from a categorical distribution that has a gradient, relaxed or straight-through."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import (
    InputError,
    check_array,
    check_cotangent,
    check_flags,
    check_positive,
    check_residuals,
    describe,
)
from handgrad.rule import Rule
from handgrad.rules._straight_through import straight_through
from handgrad.rules._wide import wide
from handgrad.rules.activations.dropout import Key, is_key
from handgrad.rules.activations.softmax import SoftmaxResiduals, softmax_backward, softmax_forward

__all__ = ["GumbelSoftmaxResiduals", "gumbel_softmax", "gumbel_softmax_backward", "gumbel_softmax_forward"]

Rows = Float[Array, "batch *rest n"]


class GumbelSoftmaxResiduals(NamedTuple):
    """Of the relaxed draw; neither the noise nor the key is needed.

    Attributes:
      P: softmax of the noisy logits, which is Y itself unless hard.
      largest: of each row of P.
    """

    P: Rows
    largest: Float[Array, "batch *rest 1"]


def gumbel_softmax_forward(
    Z: Rows, key: Key | None = None, *, temperature: float = 1.0, hard: bool = False
) -> tuple[Rows, GumbelSoftmaxResiduals]:
    """Y = softmax((Z + G) / τ) along the last axis, g = −log(−log u) Gumbel noise, u uniform.

    The largest of z + g is class k with probability softmax(z)_k. The noise is jax.random.gumbel(key, Z.shape) in
    float32, whatever Z's dtype.

    Args:
      Z: logits, or log-probabilities.
      key: one random key, or None for no noise.
      temperature: τ > 0: the nearer to 0, the nearer Y is to one-hot.
      hard: True makes Y one-hot at the largest element (the first of equals), straight-through: backward as if it were
        relaxed.
    Derivation: docs/derivations/activations/gumbel_softmax.md (Jang et al. 2017; Maddison et al. 2017)
    """
    check_array("gumbel_softmax_forward", "the logits Z", Z, min_ndim=2, filled=True)
    check_positive("gumbel_softmax_forward", "temperature", temperature)
    check_flags("gumbel_softmax_forward", hard=hard)
    if key is not None and not is_key(key):
        raise InputError(f"gumbel_softmax_forward: key must be one random key or None, got {describe(key)}")
    (S,) = wide(Z)
    if key is not None:
        S = S + jax.random.gumbel(key, Z.shape, jnp.float32)
    # The largest is 0 before the division: fused with what is subtracted from it, S / τ would miss its own maximum.
    P, kept = softmax_forward((S - jax.lax.stop_gradient(jnp.max(S, axis=-1, keepdims=True))) / temperature)
    Y = straight_through(_one_hot(P), P) if hard else P
    return Y.astype(Z.dtype), GumbelSoftmaxResiduals(P.astype(Z.dtype), kept.largest)


def gumbel_softmax_backward(
    residuals: GumbelSoftmaxResiduals, dY: Rows, *, temperature: float = 1.0, hard: bool = False
) -> tuple[Rows, None]:
    """Pull dY back through the relaxed draw, whether Y was it or one-hot.

        dZ = P ∘ (dY − ⟨P, dY⟩ 1ᵀ) / τ      ⟨·,·⟩ row by row

    Derivation: docs/derivations/activations/gumbel_softmax.md
    """
    P, largest = check_residuals("gumbel_softmax_backward", residuals, GumbelSoftmaxResiduals)
    check_cotangent("gumbel_softmax_backward", dY, P.shape, P.dtype)
    (dS,) = softmax_backward(SoftmaxResiduals(*wide(P, largest)), *wide(dY, largest)[:1])
    return (dS / temperature).astype(dY.dtype), None


gumbel_softmax = Rule(gumbel_softmax_forward, gumbel_softmax_backward)


def _one_hot(P: Rows) -> Rows:
    classes = jnp.arange(P.shape[-1]).reshape((1,) * (P.ndim - 1) + (-1,))
    return jnp.where(jnp.isnan(P), P, jnp.argmax(P, axis=-1, keepdims=True) == classes)
