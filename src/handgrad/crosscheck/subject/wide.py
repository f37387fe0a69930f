"""A reference in float64, whatever the caller's types are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from handgrad.crosscheck.subject.arguments import Leaves, is_inexact, widened
from handgrad.crosscheck.subject.compiling import NEEDS_NUMBERS, precise
from handgrad.crosscheck.subject.held import draws, hold
from handgrad.crosscheck.subject.problem import Problem


def in_float64(problem: Problem) -> tuple[Callable[[Leaves], Leaves], bool]:
    """The reference's output for wide leaves, and whether it is the same for callers of every type.

    Random numbers are drawn in the caller's types. The whole reference runs in them where it can't run in others (a
    `jnp.float32(0)` that a scan carries), and where it draws inside a loop.
    """
    try:
        with precise(True):
            wide = jax.make_jaxpr(problem.primal)(widened(problem.leaves))
    except NEEDS_NUMBERS:
        return problem.primal, True
    except Exception:  # whatever a dtype of its own makes of another
        wide = None
    if wide is not None and not draws(wide):
        return problem.primal, True
    with precise(problem.x64):
        narrow = jax.make_jaxpr(problem.primal)(problem.leaves)
    with precise(True):
        held = None if wide is None else hold(narrow, wide)
    if held is not None:
        return held, False

    def in_the_callers_types(leaves: Leaves) -> Leaves:
        return jaxpr_as_fun(narrow)(*(_cast(leaf, own.dtype) for leaf, own in zip(leaves, problem.leaves, strict=True)))

    return in_the_callers_types, False


def _cast(leaf: Any, dtype: Any) -> Any:
    return jnp.asarray(leaf).astype(dtype) if is_inexact(leaf) else leaf
