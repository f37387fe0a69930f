"""What activations and gated units share: the dtype to compute in, and products with a sigmoid over the whole range."""

import jax
import jax.numpy as jnp

from handgrad.factors.base import accumulator

Array = jax.Array


def wide(X: Array) -> Array:
    """X in float32 at least: a function of several steps rounds once, at its end."""
    return X.astype(accumulator(X))


def halves(X: Array) -> tuple[Array, Array]:
    """E = e^(−|x|), and r with r² = E where x < 0, r = 1 elsewhere.

    σ(x) is r² / (1 + E) then, from an exponential that never overflows. Who multiplies with r twice, and not with E,
    keeps a product whose other side is large while E is below the smallest normal number.
    """
    root = jnp.exp(-jnp.abs(X) / 2)
    return root * root, jnp.where(X < 0, root, 1)


def sigmoids(X: Array) -> tuple[Array, Array]:
    """σ(x) and σ(−x), which 1 − σ(x) would round to 0 for a large x."""
    E = jnp.exp(-jnp.abs(X))
    S, T = 1 / (1 + E), E / (1 + E)
    return jnp.where(X < 0, T, S), jnp.where(X < 0, S, T)


def times_sigmoid(X: Array, P: Array, XdP: Array) -> tuple[Array, Array]:
    """Y = x σ(p) and its slope σ(p) (1 + x p′ σ(−p)), p a function of x.

    Args:
      X: (...) the input, float32 at least.
      P: (...) p(x).
      XdP: (...) x p′(x), where σ(p) is not 0 or 1.
    """
    E, r = halves(P)
    complement = jnp.where(P < 0, 1, E) / (1 + E)
    return X * r * r / (1 + E), r * (r * (1 + XdP * complement)) / (1 + E)
