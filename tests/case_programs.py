"""A row of the table of cases as a program: by hand, and by autodiff of its reference."""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from handgrad import rules
from handgrad.cases import Case

OPS = [name for name, value in vars(rules).items() if isinstance(value, rules.Rule)]


def is_floating(a: Any) -> bool:
    return a is not None and jnp.issubdtype(a.dtype, jnp.floating)


def in_dtype(a: Any, dtype: Any) -> Any:
    """A drawn argument as a JAX array: numbers in a dtype, anything else as it is."""
    if a is None or isinstance(a, jax.Array):
        return a
    a = np.asarray(a)
    return jax.device_put(a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a)


@functools.cache
def drawn(case: Case, dtype: Any = jnp.float64) -> tuple[Any, ...]:
    """A cotangent that is neither ones nor constant, and the row's arguments, in a dtype."""
    rng = np.random.default_rng(zlib.crc32(f"{case.op}-{case.name}".encode()))
    arguments = tuple(in_dtype(a, dtype) for a in case.draw(rng))
    Y = jax.eval_shape(case.expected, *arguments)
    return jax.tree.map(lambda y: jax.device_put(rng.standard_normal(y.shape).astype(y.dtype)), Y), *arguments


def by_hand(case: Case) -> Callable[..., tuple[Any, tuple[Any, ...]]]:
    """(dY, *arguments) -> (Y, cotangents), factors multiplied out."""
    forward, backward = case.settled

    def run(dY, *arguments):
        Y, residuals = forward(*arguments)
        cotangents = backward(residuals, dY)
        assert isinstance(cotangents, tuple)
        assert all(c is None for c in cotangents[len(arguments) :])  # of omitted arguments
        for cotangent, argument in zip(cotangents, arguments, strict=False):
            assert (cotangent.shape == argument.shape) if is_floating(argument) else cotangent is None
        return Y, hg.materialize(cotangents[: len(arguments)])

    return run


def by_autodiff(case: Case, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """The same of the row's reference, or of another function, by jax.vjp; None for an integer argument."""

    def run(dY, *arguments):
        Y, pullback = jax.vjp(function or case.expected, *arguments)
        cotangents = pullback(jax.tree.map(lambda dy, y: dy.astype(y.dtype), dY, Y))
        return Y, tuple(None if c is None or c.dtype == jax.dtypes.float0 else c for c in cotangents)

    return run
