"""The clock, what the machine can do, and what a program asks of it: matrix products and bytes."""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

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


def product_flops(function: Callable[..., PyTree], *arguments: PyTree) -> int:
    """Multiplications and additions of this function's matrix products and convolutions; loops count every turn.

    2 m k n for a product of (m, k) and (k, n); a branch counts as its longest one. What a while loop of unknown length
    repeats is counted once.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (summed, _), _ = params["dimension_numbers"]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in summed)
        elif name == "conv_general_dilated":
            kernel, spec = eqn.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel[i] for i in spec[1:])
        elif name == "cond":
            total += max(_flops(branch.jaxpr) for branch in params["branches"])
        else:
            turns = params["length"] if name == "scan" else 1
            inner = (getattr(value, "jaxpr", value) for value in params.values())
            total += turns * sum(_flops(one) for one in inner if hasattr(one, "eqns"))
    return total
