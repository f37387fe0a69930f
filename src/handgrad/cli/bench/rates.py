"""The clock, and what the machine can do."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp

# rows and columns of the matrices multiplied, float32 numbers copied: what fills two cores, and an accelerator
PRODUCT, COPY = {"cpu": 1024, "wall": 8192}, {"cpu": 1 << 24, "wall": 1 << 28}


def clock() -> Literal["cpu", "wall"]:
    """The time that is quoted: of processors on a CPU, since other programs disturb it less; of the wall on
    accelerators, while which processors idle."""
    return "cpu" if jax.default_backend() == "cpu" else "wall"


@cache
def product_rate(dtype: str = "float32") -> float:
    """FLOP/s of the product of two square matrices, compiled: normal numbers, since zeros and ones take less power."""
    n = PRODUCT[clock()]
    A = jax.random.normal(jax.random.key(0), (n, n), jnp.float32).astype(dtype)
    return 2 * n**3 / _seconds(jax.jit(jnp.matmul), A, A)


@cache
def copy_rate() -> float:
    """Bytes read and written in a second by a compiled copy of an array larger than the caches."""
    x = jnp.ones(COPY[clock()], jnp.float32)
    return 2 * x.nbytes / _seconds(jax.jit(jnp.negative), x)


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Of the fastest of several runs: what the machine can do."""
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)
