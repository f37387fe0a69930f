"""Rotary position embedding: every pair of features is rotated by the token's position."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from handgrad.checks import (
    InputError,
    as_row,
    check_array,
    check_choice,
    check_cotangent,
    check_positive,
    check_residuals,
    describe,
    is_integer,
)
from handgrad.factors.base import accumulator
from handgrad.rule import Rule

__all__ = ["RotaryResiduals", "rotary", "rotary_backward", "rotary_forward"]

Heads = Float[Array, "batch tokens heads n"]
Positions = Integer[Array, " tokens"] | Integer[Array, "batch tokens"]
Form = Literal["half", "interleaved"]


class RotaryResiduals(NamedTuple):
    """Y, for its shape and dtype alone (attention keeps it anyway), and positions, from which the angles come."""

    Y: Heads
    positions: Positions


def rotary_forward(
    X: Heads, positions: Positions, *, base: float = 10000.0, form: Form = "half"
) -> tuple[Heads, RotaryResiduals]:
    """(y₁, y₂) = (x₁ cos θ − x₂ sin θ, x₁ sin θ + x₂ cos θ) for each pair of features.

    At position p, pair i of n / 2 rotates by θ = p base^(−2i/n). The product of a query and a key, both rotated,
    depends on their positions' difference alone.

    Args:
      X: queries or keys; n is even.
      base: a positive number, the slowest pair's period over 2π.
      form: "half" pairs feature i with i + n / 2 (GPT-NeoX, Llama); "interleaved" pairs 2i with 2i + 1 (the paper).
    Derivation: docs/derivations/attention/rotary.md (Su et al., 2021)
    """
    where = "rotary_forward"
    check_array(where, "X", X)
    if len(X.shape) != 4 or X.shape[3] % 2:
        raise InputError(f"{where}: X must have shape (batch, tokens, heads, n) with an even n, got {describe(X)}")
    if not is_integer(positions):
        raise InputError(f"{where}: positions must be integers, got {describe(positions)}")
    if positions.shape not in (X.shape[1:2], X.shape[:2]):
        raise InputError(
            f"{where}: positions must have shape {X.shape[1:2]} or {X.shape[:2]} to meet X, got {describe(positions)}"
        )
    _check_options(where, base, form)
    Y = _rotate(X, positions, base, form, 1)
    return Y, RotaryResiduals(Y, positions)


def rotary_backward(
    residuals: RotaryResiduals, dY: Heads, *, base: float = 10000.0, form: Form = "half"
) -> tuple[Heads, None]:
    """Pull dY back through a rotation: rotate it back.

        (dx₁, dx₂) = (dy₁ cos θ + dy₂ sin θ, −dy₁ sin θ + dy₂ cos θ)

    Derivation: docs/derivations/attention/rotary.md
    """
    where = "rotary_backward"
    Y, positions = check_residuals(where, residuals, RotaryResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    _check_options(where, base, form)
    return _rotate(dY, positions, base, form, -1), None


rotary = Rule(rotary_forward, rotary_backward)


def _rotate(X: Heads, positions: Positions, base: float, form: Form, sign: int) -> Heads:
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


def _check_options(where: str, base: float, form: Form) -> None:
    check_positive(where, "base", base)
    check_choice(where, "form", form, ("half", "interleaved"))
