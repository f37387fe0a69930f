"""JAX's default random bits with their hash written out, the same numbers: on CPU JAX's own is a loop over arrays,
which XLA neither fuses with what reads the bits nor compiles fast."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

Words = Any  # NumPy's or JAX's uint32
THREEFRY = "threefry2x32"
CONFIG: Any = jax.config  # its flags are no attributes to a type checker
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def threefry(k0: Words, k1: Words, x0: Words, x1: Words) -> tuple[Words, Words]:
    """The hash of (x0, x1) under the key (k0, k1): Salmon et al. 2011, twenty rounds written out."""
    keys = k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA)
    x0, x1 = x0 + k0, x1 + k1
    for i in range(5):
        for r in ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r)))
        x0, x1 = x0 + keys[(i + 1) % 3], x1 + (keys[(i + 2) % 3] + np.uint32(i + 1))
    return x0, x1


def hashed(key: Words, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Two words for each element: the hash of its index."""
    index = jax.lax.iota(np.uint32, math.prod(shape)).reshape(shape)
    return threefry(key[0], key[1], jnp.zeros_like(index), index)


def bits(key: PRNGKeyArray | UInt32[Array, " words"], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """jax.random.bits(key, shape, uint32)."""
    of_index = CONFIG.jax_threefry_partitionable and jax.random.key_impl(key) == THREEFRY
    if not of_index or jax.default_backend() != "cpu" or math.prod(shape) > 2**32:
        return jax.random.bits(key, shape, jnp.uint32)
    high, low = hashed(jax.random.key_data(key), shape)
    return high ^ low
