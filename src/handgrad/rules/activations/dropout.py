"""Dropout: noise that is the same in both passes, which draw it from the same key."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from handgrad.checks import InputError, check_array, check_choice, check_cotangent, check_residuals, describe
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules._threefry import bits
from handgrad.rules._wide import wide

__all__ = ["DropoutResiduals", "dropout", "dropout_backward", "dropout_forward"]

Elements = Float[Array, "batch *rest"]
Mask = Bool[Array, "batch *rest"]
Key = PRNGKeyArray | UInt32[Array, " words"]  # of jax.random.key, or of jax.random.PRNGKey
POLICIES = ("save", "recompute")


class DropoutResiduals(NamedTuple):
    """The mask or the key that it is drawn from; neither, where nothing is dropped.

    Attributes:
      outline: X's shape and dtype in an array of no bytes.
      mask: a byte for each element, true where it was kept; where the mask was saved.
      key: the random key, where the mask is drawn again.
    """

    outline: Float[Array, "batch 0 *rest"]
    mask: Mask | None
    key: Key | None


def dropout_forward(
    X: Elements, key: Key | None = None, *, rate: int | float, residuals: Literal["save", "recompute"] = "save"
) -> tuple[Elements, DropoutResiduals]:
    """Y = X ∘ M / (1 − rate), M is 1 with probability 1 − rate and 0 otherwise: X on average.

    The mask is jax.random.bernoulli(key, 1 − rate, X.shape) in float32, whatever X's dtype. What is dropped is 0, even
    where X is infinite or NaN. Without a key, and at rate 0, Y = X.

    Args:
      key: one random key, or None for no noise.
      rate: the probability of being dropped, in [0, 1).
      residuals: "save" keeps the mask, a byte for each element; "recompute" keeps the key and draws the mask again
        (rematerialization).
    Derivation: docs/derivations/activations/dropout.md (Srivastava et al. 2014)
    """
    check_array("dropout_forward", "X", X, min_ndim=1)
    check_rate("dropout_forward", rate)
    check_choice("dropout_forward", "residuals", residuals, POLICIES)
    if key is not None and not is_key(key):
        raise InputError(f"dropout_forward: key must be one random key or None, got {describe(key)}")
    if key is None or rate == 0:
        return X, DropoutResiduals(outline(X), None, None)
    M = _mask(key, rate, X.shape)
    kept = (M, None) if residuals == "save" else (None, key)
    return _masked(M, X, rate), DropoutResiduals(outline(X), *kept)


def dropout_backward(residuals: DropoutResiduals, dY: Elements, *, rate: int | float) -> tuple[Elements, None]:
    """Pull dY back through Y = X ∘ M / (1 − rate): the same mask, the same scale.

        dX = dY ∘ M / (1 − rate)

    Derivation: docs/derivations/activations/dropout.md
    """
    empty, mask, key = check_residuals("dropout_backward", residuals, DropoutResiduals)
    X = outlined(empty)
    check_cotangent("dropout_backward", dY, X.shape, X.dtype)
    check_rate("dropout_backward", rate)
    M = mask if key is None else _mask(key, rate, dY.shape)
    return dY if M is None else _masked(M, dY, rate), None


dropout = Rule(dropout_forward, dropout_backward)


def check_rate(where: str, rate: int | float) -> None:
    """`rate` is a probability below 1."""
    if isinstance(rate, bool) or not (isinstance(rate, int | float) and 0 <= rate < 1 and math.isfinite(rate)):
        raise InputError(f"{where}: rate must be a number in [0, 1), got {rate!r}")


def _mask(key: Key, rate: int | float, shape: tuple[int, ...]) -> Mask:
    """jax.random.bernoulli(key, float32(1 − rate), shape), its 23 random bits compared as the integers that they are.

    No floating-point dtype is involved: a Python number for 1 − rate would be drawn in JAX's default one, so that one
    key would have another mask wherever 64 bits are switched on.
    """
    return bits(key, shape) >> 9 < math.ceil(np.float32(1 - rate) * 2**23)


def _masked(M: Mask, X: Elements, rate: int | float) -> Elements:
    """X ∘ M / (1 − rate), the quotient in float32 at least: bfloat16 has no 0.9, only 0.8984, off by 0.2%."""
    (Xw,) = wide(X)
    return jnp.where(M, (Xw / (1 - rate)).astype(X.dtype), 0)


def is_key(key: Key) -> bool:
    """Whether it is one key of jax.random.key, or the words of one, as jax.random.PRNGKey gives them."""
    dtype, ndim = getattr(key, "dtype", None), len(getattr(key, "shape", ()))
    if dtype is None:
        return False
    return (jnp.issubdtype(dtype, jax.dtypes.prng_key) and ndim == 0) or (dtype == jnp.uint32 and ndim == 1)
