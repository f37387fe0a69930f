"""How a check's programs are compiled, and in which types they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from handgrad.crosscheck.subject.arguments import Function

# A check runs each program a few times, so compiling is its price: XLA's older code generator for CPUs and LLVM's first
# level take half of the time. Where a version of XLA doesn't know a name, its own defaults do. (Level 0 would be faster
# still, but XLA's code is then wrong: NaN, or 14 % off, in the autodiff half of one random network in a hundred.)
QUICK_TO_COMPILE: dict[str, bool | str] = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": "1",  # whatever XLA_FLAGS says
}
# What a program raises that depends on a traced array's numbers: it may still be right when run step by step.
NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
)


@contextmanager
def precise(x64: bool) -> Iterator[None]:
    """64-bit types on or off, matrix products in full precision; the caller's settings come back, whatever happens."""
    with jax.enable_x64(x64), jax.default_matmul_precision("highest"), jax.debug_nans(False), jax.disable_jit(False):
        yield


def compiled_program(function: Function, arguments: Any) -> tuple[Function, Any]:
    """The compiled program, and its jaxpr."""
    traced = jax.jit(function).trace(*arguments)
    lowered = traced.lower()
    try:
        return lowered.compile(QUICK_TO_COMPILE), traced.jaxpr
    except jax.errors.JaxRuntimeError:
        return lowered.compile(), traced.jaxpr


def on_device(arrays: Any) -> Any:
    """NumPy's arrays as JAX's."""
    return jax.device_put(arrays)  # jnp.asarray would compile a copy for every shape


def as_numpy(tree: Any) -> Any:
    """JAX's arrays as NumPy's."""
    return jax.tree.map(np.asarray, tree)
