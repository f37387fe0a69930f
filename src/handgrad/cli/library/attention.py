"""Attention, plain and tiled, and the rotary position embedding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.cli.library.entry import Arrays, Draw, Entry, normal


def attention(
    Q: Any,
    K: Any,
    V: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    causal: bool = False,
    softcap: float | None = None,
    tile: int | None = None,
) -> Any:
    """A head at a time in einsum; jax.nn's own computes its softmax in float32 whatever comes in."""
    heads = Q.shape[2]
    K, V = (jnp.repeat(A, heads // A.shape[2], axis=2) for A in (K, V))
    S = jnp.einsum("bthn,bshn->bhts", Q, K) * (scale or Q.shape[3] ** -0.5)
    S = softcap * jnp.tanh(S / softcap) if softcap else S
    S = S if bias is None else S + jnp.broadcast_to(bias, S.shape)
    seen = jnp.ones(S.shape, bool) if mask is None else jnp.broadcast_to(mask, S.shape)
    seen = jnp.tril(seen) if causal else seen
    return jnp.einsum("bhts,bshn->bthn", jax.nn.softmax(jnp.where(seen, S, -jnp.inf), axis=-1), V)


def rotary(X: Any, positions: Any, base: float = 10000.0, form: str = "half") -> Any:
    """Pairs of features as complex numbers' two parts: (x₁ + i x₂) e^(iθ)."""
    n = X.shape[3]
    dtype = jnp.promote_types(X.dtype, jnp.float32)
    speeds = jnp.asarray(base ** (-np.arange(0, n, 2) / n), dtype)
    turn = jnp.exp(1j * positions.astype(dtype)[:, None, None] * speeds[None, None, :])[None]
    (one, other) = jnp.split(X, 2, axis=3) if form == "half" else (X[..., 0::2], X[..., 1::2])
    Z = jax.lax.complex(one.astype(dtype), other.astype(dtype)) * turn
    Y = jnp.concatenate([Z.real, Z.imag], 3) if form == "half" else jnp.stack([Z.real, Z.imag], 4).reshape(X.shape)
    return Y.astype(X.dtype)


def hidden(*shapes: tuple[int, ...], mask: tuple[int, ...]) -> Draw:
    """Normal numbers, and a mask that leaves every query its first key."""

    def draw(rng: np.random.Generator) -> Arrays:
        numbers = normal(*shapes)(rng)
        seen = rng.uniform(size=mask) < 0.6
        seen[..., 0] = True
        return *numbers, seen

    return draw


def turned(shape: tuple[int, ...], *positions: int) -> Draw:
    """Normal numbers at these positions."""
    return lambda rng: (rng.standard_normal(shape), np.array(positions))


def of_both(inputs: str, draw: Draw, reference: Callable[..., Any], **options: Any) -> list[Entry]:
    """One row for each form of attention."""
    return [
        Entry("attention", inputs, draw, reference, options),
        Entry("tiled_attention", inputs, draw, reference, {**options, "tile": 2}),
    ]


ATTENTION = [
    *of_both("of others", normal((2, 3, 2, 4), (2, 5, 1, 4), (2, 5, 1, 3)), attention),
    *of_both(
        "masked",
        hidden((2, 3, 2, 4), (2, 3, 2, 4), (2, 3, 2, 2), (1, 2, 3, 3), mask=(2, 1, 3, 3)),
        attention,
        causal=True,
        softcap=2.0,
    ),
    Entry("rotary", "tokens", turned((2, 3, 2, 4), 0, 1, 2), rotary),
    Entry("rotary", "tokens", turned((2, 3, 1, 6), 4, -2, 90), rotary, {"form": "interleaved", "base": 100.0}),
]
