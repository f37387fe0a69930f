"""Rotary position embedding: every pair of features is rotated by the token's position."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from handgrad.checks import (
    InputError,
    as_row,
    check_array,
    check_choice,
    check_cotangent,
    check_count,
    check_positive,
    check_residuals,
    describe,
    is_integer,
)
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.attention._speeds import (
    LinearScaling,
    Llama3Scaling,
    NtkScaling,
    RotaryScaling,
    Speeds,
    YarnScaling,
    rotary_speeds,
)

__all__ = [
    "LinearScaling",
    "Llama3Scaling",
    "NtkScaling",
    "RotaryResiduals",
    "RotaryScaling",
    "YarnScaling",
    "rotary",
    "rotary_backward",
    "rotary_forward",
]

Heads = Float[Array, "batch tokens heads n"]
Positions = Integer[Array, " tokens"] | Integer[Array, "batch tokens"]
Form = Literal["half", "interleaved"]


class RotaryResiduals(NamedTuple):
    """Y, for its shape and dtype alone (attention keeps it anyway), and positions, from which the angles come."""

    Y: Heads
    positions: Positions


def rotary_forward(
    X: Heads,
    positions: Positions,
    *,
    base: float = 10000.0,
    form: Form = "half",
    features: int | None = None,
    scaling: RotaryScaling | None = None,
) -> tuple[Heads, RotaryResiduals]:
    """(y₁, y₂) = (x₁ cos θ − x₂ sin θ, x₁ sin θ + x₂ cos θ) for each pair of features.

    At position p, pair i of n / 2 rotates by θ = p base^(−2i/n). The product of a query and a key, both rotated,
    depends on their positions' difference alone.

    Args:
      X: queries or keys; n is even.
      base: a positive number, the slowest pair's period over 2π.
      form: "half" pairs feature i with i + n / 2 (GPT-NeoX, Llama); "interleaved" pairs 2i with 2i + 1 (the paper).
      features: how many of a head's features rotate, the first ones, an even number (partial rotary); None is all.
      scaling: for more tokens than a model was trained on: LinearScaling, NtkScaling, YarnScaling or Llama3Scaling.
    Derivation: docs/derivations/attention/rotary.md (Su et al., 2021)
    """
    where = "rotary_forward"
    check_array(where, "X", X)
    if len(X.shape) != 4 or (features is None and X.shape[3] % 2):
        raise InputError(f"{where}: X must have shape (batch, tokens, heads, n) with an even n, got {describe(X)}")
    if not is_integer(positions):
        raise InputError(f"{where}: positions must be integers, got {describe(positions)}")
    if positions.shape not in (X.shape[1:2], X.shape[:2]):
        raise InputError(
            f"{where}: positions must have shape {X.shape[1:2]} or {X.shape[:2]} to meet X, got {describe(positions)}"
        )
    n = _checked_features(where, X.shape[3], base, form, features, scaling)
    Y = _rotate(X, positions, rotary_speeds(n, base, scaling, X.shape[1]), form, 1)
    return Y, RotaryResiduals(Y, positions)


def rotary_backward(
    residuals: RotaryResiduals,
    dY: Heads,
    *,
    base: float = 10000.0,
    form: Form = "half",
    features: int | None = None,
    scaling: RotaryScaling | None = None,
) -> tuple[Heads, None]:
    """Pull dY back through a rotation: rotate it back.

        (dx₁, dx₂) = (dy₁ cos θ + dy₂ sin θ, −dy₁ sin θ + dy₂ cos θ)

    A scaling with a size c, as YaRN's, has y = c R x, and dx = c Rᵀ dy.

    Derivation: docs/derivations/attention/rotary.md
    """
    where = "rotary_backward"
    Y, positions = check_residuals(where, residuals, RotaryResiduals)
    check_cotangent(where, dY, Y.shape, Y.dtype)
    n = _checked_features(where, Y.shape[3], base, form, features, scaling)
    return _rotate(dY, positions, rotary_speeds(n, base, scaling, Y.shape[1]), form, -1), None


rotary = Rule(rotary_forward, rotary_backward)


def _rotate(X: Heads, positions: Positions, speeds_and_size: tuple[Speeds, float], form: Form, sign: int) -> Heads:
    """Every pair of X's first features by θ, or by −θ, and times a number; the others as they are."""
    speeds, size = speeds_and_size
    half, dtype = len(speeds), accumulator(X)
    theta = jnp.expand_dims(positions, (-2, -1)).astype(dtype) * as_row(jnp.asarray(speeds, dtype), positions.ndim + 2)
    cos, sin = size * jnp.cos(theta), sign * size * jnp.sin(theta)  # (..., tokens, 1, half)
    if positions.ndim == 1:
        cos, sin = cos[None], sin[None]
    rotated, others = X[..., : 2 * half], X[..., 2 * half :]
    pairs = rotated.reshape(*X.shape[:3], *((2, half) if form == "half" else (half, 2)))
    axis = 3 if form == "half" else 4
    X1, X2 = (jax.lax.index_in_dim(pairs, i, axis, keepdims=False).astype(dtype) for i in (0, 1))
    Y = jnp.stack([X1 * cos - X2 * sin, X1 * sin + X2 * cos], axis)
    Y = Y.reshape(rotated.shape).astype(X.dtype)
    return jnp.concatenate([Y, others], axis=3) if others.shape[3] else Y


def _checked_features(
    where: str, n: int, base: float, form: Form, features: int | None, scaling: RotaryScaling | None
) -> int:
    """How many features rotate; every option is what it should be."""
    check_positive(where, "base", base)
    check_choice(where, "form", form, ("half", "interleaved"))
    if scaling is not None and not isinstance(scaling, RotaryScaling):
        raise InputError(f"{where}: scaling must be a RotaryScaling, as YarnScaling, or None, got {describe(scaling)}")
    if features is None:
        return n
    check_count(where, "features", features)
    if features % 2 or features > n:
        raise InputError(f"{where}: features must be even and at most {n}, a head's, got {features}")
    return features
