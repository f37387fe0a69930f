"""Dropout: noise that is the same in both passes, because both know the key it was drawn from."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import InputError, check_array, check_choice, check_cotangent, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.rules._outline import outline, outlined
from handgrad.rules.rule import Rule

__all__ = [
    "DropoutResiduals",
    "dropout",
    "dropout_backward",
    "dropout_forward",
]

Array = jax.Array

POLICIES = ("save", "recompute")


class DropoutResiduals(NamedTuple):
    """The mask or the key that it is drawn from; neither, where nothing is dropped.

    Attributes:
      outline: (batch, 0, ...) X's shape and dtype, and no byte.
      mask: (batch, ...) booleans, a byte each: what was let through, where it was saved.
      key: the random key, where the mask is drawn again.
    """

    outline: Array
    mask: Array | None
    key: Array | None


def dropout_forward(
    X: Array, key: Array | None = None, *, rate: float, residuals: str = "save"
) -> tuple[Array, DropoutResiduals]:
    """Y = X ∘ M / (1 − rate), M is 1 with probability 1 − rate and 0 otherwise: X on average.

    The mask is jax.random.bernoulli(key, 1 − rate, X.shape) in float32, whatever X's dtype. What is dropped is 0, be it
    infinite or NaN in X. Without a key, and at rate 0, Y = X.

    Args:
      X: (batch, ...) floating point.
      key: a random key, or None for no noise.
      rate: the probability of being dropped, in [0, 1).
      residuals: "save" keeps the mask, a byte for each element; "recompute" the key, and draws the mask again.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point, or has no batch; key is no random key; rate outside [0, 1); residuals is
        neither of the two.
    Derivation: docs/derivations/activations/dropout.md (Srivastava et al. 2014)
    """
    check_array("dropout_forward", "X", X, min_ndim=1)
    check_rate("dropout_forward", rate)
    check_choice("dropout_forward", "residuals", residuals, POLICIES)
    if key is None:
        return X, DropoutResiduals(outline(X), None, None)
    if not _is_key(key):
        raise InputError(f"dropout_forward: key must be one random key or None, got {describe(key)}")
    if rate == 0:
        return X, DropoutResiduals(outline(X), None, None)
    M = _mask(key, rate, X.shape)
    kept = (M, None) if residuals == "save" else (None, key)
    return _through(M, X, rate), DropoutResiduals(outline(X), *kept)


def dropout_backward(residuals: DropoutResiduals, dY: Array, *, rate: float) -> tuple[Array, None]:
    """Pull dY back through Y = X ∘ M / (1 − rate): the same mask, the same scale.

        dX = dY ∘ M / (1 − rate)

    Args:
      residuals: DropoutResiduals of dropout_forward.
      dY: like X, cotangent of Y.
      rate: the forward's.
    Returns:
      dX like X; None for the key.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype; rate outside [0, 1).
    Derivation: docs/derivations/activations/dropout.md
    """
    empty, mask, key = check_residuals("dropout_backward", residuals, DropoutResiduals)
    X = outlined(empty)
    check_cotangent("dropout_backward", dY, X.shape, X.dtype)
    check_rate("dropout_backward", rate)
    M = mask if key is None else _mask(key, rate, dY.shape)
    return dY if M is None else _through(M, dY, rate), None


dropout = Rule(dropout_forward, dropout_backward)


def _mask(key: Array, rate: float, shape: tuple[int, ...]) -> Array:
    """jax.random.bernoulli(key, float32(1 − rate), shape), its 23 random bits compared as the integers that they are.

    No number's dtype has a part in it. A Python number for 1 − rate would be drawn in JAX's own float, and one key
    would have another mask wherever 64 bits are switched on.
    """
    return jax.random.bits(key, shape, jnp.uint32) >> 9 < math.ceil(np.float32(1 - rate) * 2**23)


def _through(M: Array, X: Array, rate: float) -> Array:
    """X ∘ M / (1 − rate), the quotient in float32 at least: bfloat16 has no 0.9, only 0.8984, off by 0.2%."""
    scaled = (X.astype(accumulator(X)) / (1 - rate)).astype(X.dtype)
    return jnp.where(M, scaled, 0)


def check_rate(where: str, rate: float) -> None:
    if isinstance(rate, bool) or not (isinstance(rate, int | float) and 0 <= rate < 1 and math.isfinite(rate)):
        raise InputError(f"{where}: rate must be a number in [0, 1), got {rate!r}")


def _is_key(key: Array) -> bool:
    """Whether it is one key of jax.random.key, or the words of one, as jax.random.PRNGKey gives them."""
    dtype, ndim = getattr(key, "dtype", None), len(getattr(key, "shape", ()))
    if dtype is None:
        return False
    return (jnp.issubdtype(dtype, jax.dtypes.prng_key) and ndim == 0) or (dtype == jnp.uint32 and ndim == 1)
