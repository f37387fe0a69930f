"""Rotary position embedding: every pair of features turns with the token's position."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import (
    InputError,
    as_row,
    check_array,
    check_choice,
    check_cotangent,
    check_positive,
    check_residuals,
    describe,
)
from handgrad.factors.base import accumulator
from handgrad.rules.rule import Rule

__all__ = [
    "RotaryResiduals",
    "rotary",
    "rotary_backward",
    "rotary_forward",
]

Array = jax.Array


class RotaryResiduals(NamedTuple):
    """What the angles are made of.

    Attributes:
      Y: (batch, tokens, heads, n) output, for its shape and dtype; attention keeps it anyway.
      positions: (tokens,) or (batch, tokens) integers.
    """

    Y: Array
    positions: Array


def rotary_forward(
    X: Array, positions: Array, *, base: float = 10000.0, form: str = "half"
) -> tuple[Array, RotaryResiduals]:
    """(y₁, y₂) = (x₁ cos θ − x₂ sin θ, x₁ sin θ + x₂ cos θ) for each pair of features.

    At position p, pair i of n / 2 turns by θ = p base^(−2i/n). The product of a query and a key, both turned, depends
    on their positions' difference alone.

    Args:
      X: (batch, tokens, heads, n) floating point, n even: queries or keys.
      positions: (tokens,) or (batch, tokens) integers.
      base: a positive number, the slowest pair's period over 2π.
      form: "half" pairs feature i with i + n / 2 (GPT-NeoX, Llama); "interleaved" pairs 2i with 2i + 1 (the paper).
    Returns:
      Y like X; residuals.
    Raises:
      InputError: a wrong shape, dtype or option; an odd n.
    Derivation: docs/derivations/attention/rotary.md (Su et al., 2021)
    """
    where = "rotary_forward"
    check_array(where, "X", X)
    if len(X.shape) != 4 or X.shape[3] % 2:
        raise InputError(f"{where}: X must have shape (batch, tokens, heads, n) with an even n, got {describe(X)}")
    if not (hasattr(positions, "dtype") and jnp.issubdtype(positions.dtype, jnp.integer)):
        raise InputError(f"{where}: positions must be integers, got {describe(positions)}")
    if positions.shape not in (X.shape[1:2], X.shape[:2]):
        raise InputError(
            f"{where}: positions must have shape {X.shape[1:2]} or {X.shape[:2]} to meet X, got {describe(positions)}"
        )
    _check_options(where, base, form)
    Y = _turn(X, positions, base, form, 1)
    return Y, RotaryResiduals(Y, positions)


def rotary_backward(
    residuals: RotaryResiduals, dY: Array, *, base: float = 10000.0, form: str = "half"
) -> tuple[Array, None]:
    """Pull dY back through a rotation: turn it back.

        (dx₁, dx₂) = (dy₁ cos θ + dy₂ sin θ, −dy₁ sin θ + dy₂ cos θ)

    Args:
      residuals: RotaryResiduals of rotary_forward.
      dY: (batch, tokens, heads, n) cotangent of Y.
      base, form: the forward's.
    Returns:
      dX like X; None for the positions.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/attention/rotary.md
    """
    where = "rotary_backward"
    Y, positions = check_residuals(where, residuals, RotaryResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    _check_options(where, base, form)
    return _turn(dY, positions, base, form, -1), None


rotary = Rule(rotary_forward, rotary_backward)


def _turn(X: Array, positions: Array, base: float, form: str, sign: int) -> Array:
    """Every pair of X by θ, or by −θ."""
    half = X.shape[3] // 2
    dtype = accumulator(X)
    speeds = float(base) ** (-np.arange(half) / half)
    theta = jnp.expand_dims(positions, (-2, -1)).astype(dtype) * as_row(jnp.asarray(speeds, dtype), positions.ndim + 2)
    cos, sin = jnp.cos(theta), sign * jnp.sin(theta)  # (..., tokens, 1, half)
    if positions.ndim == 1:
        cos, sin = cos[None], sin[None]
    pairs = X.reshape(*X.shape[:3], *((2, half) if form == "half" else (half, 2)))
    axis = 3 if form == "half" else 4
    X1, X2 = (jax.lax.index_in_dim(pairs, i, axis, keepdims=False).astype(dtype) for i in (0, 1))
    Y = jnp.stack([X1 * cos - X2 * sin, X1 * sin + X2 * cos], axis)
    return Y.reshape(X.shape).astype(X.dtype)


def _check_options(where: str, base: float, form: str) -> None:
    check_positive(where, "base", base)
    check_choice(where, "form", form, ("half", "interleaved"))
