"""How many roundings a program makes one after the other, and the coarsest type that it computes in."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.crosscheck.evidence.tolerance import unit_roundoff

# None of these rounds: they move, select or compare numbers, or change nothing but the sign.
EXACT = frozenset(
    """abs and argmax argmin broadcast_in_dim ceil clamp concatenate conj convert_element_type copy cummax cummin
    dynamic_slice dynamic_update_slice eq floor gather ge gt imag iota is_finite le lt max min ne neg not or pad real
    reduce_and reduce_max reduce_min reduce_or reduce_precision reshape rev round select_n sign slice sort split squeeze
    stop_gradient transpose xor""".split()  # noqa: SIM905
)


def depth(jaxpr: Any) -> int:
    """The roundings on the longest path through a program.

    An operation that rounds counts one, a sum over n terms 1 + ⌈log₂ n⌉ (a tree of additions, the least that any order
    needs), a loop as many times its body as it runs, a choice its longest branch. What no output needs counts nothing.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    reached: dict[Any, int] = {}
    longest = 0
    for equation in _needed(jaxpr):
        # id: a literal isn't hashable
        before = max((reached.get(id(v), 0) for v in equation.invars), default=0)
        after = before + _roundings(equation)
        longest = max(longest, after)
        reached.update((id(v), after) for v in equation.outvars)
    return longest


def coarse_intermediates(jaxpr: Any) -> Any:
    """The coarsest floating-point type below float64 that a program computes its output in; None where there is none.

    What doesn't depend on a floating-point input (a dropout's uniform numbers) is a constant of any type.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    moved = [hasattr(v.aval, "dtype") and jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in jaxpr.invars]
    found = {dtype for dtype in _dtypes(jaxpr, moved) if unit_roundoff(dtype) > 1e-12}
    return max(found, key=unit_roundoff, default=None)


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that an output depends on, in order."""
    wanted, found = {id(v) for v in jaxpr.outvars}, []
    for equation in reversed(jaxpr.eqns):
        if any(id(v) in wanted for v in equation.outvars):
            found.append(equation)
            wanted.update(id(v) for v in equation.invars)
    return found[::-1]


def _dtypes(jaxpr: Any, moved: list[bool]) -> set[Any]:
    """The floating-point types of what depends on the inputs that are `moved`."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    reached = {id(v) for v, moves in zip(jaxpr.invars, moved, strict=True) if moves}
    found: set[Any] = set()
    for equation in _needed(jaxpr):
        given = [id(v) in reached for v in equation.invars]
        if not any(given):
            continue
        reached.update(id(v) for v in equation.outvars)
        found |= {v.aval.dtype for v in equation.outvars if jnp.issubdtype(getattr(v.aval, "dtype", bool), jnp.inexact)}
        for inner in core.jaxprs_in_params(equation.params):
            inner = inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner
            alike = len(inner.invars) == len(given)
            found |= _dtypes(inner, given if alike else [True] * len(inner.invars))
    return found


def _roundings(equation: Any) -> int:
    name = equation.primitive.name
    inner = list(core.jaxprs_in_params(equation.params))
    if inner:
        times = equation.params.get("length", 1) if name == "scan" else 1
        return times * max(depth(one) for one in inner)
    if name in EXACT:
        return 0
    return 1 + math.ceil(math.log2(max(_terms(equation), 1)))


def _terms(equation: Any) -> int:
    """How many terms one element of the result is a sum of."""
    name = equation.primitive.name
    shape = getattr(equation.invars[0].aval, "shape", ()) if equation.invars else ()
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return int(np.prod([shape[i] for i in contracted]))
    if name in ("reduce_sum", "reduce_prod"):
        return int(np.prod([shape[i] for i in equation.params["axes"]]))
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return int(np.prod(kernel)) // max(kernel[equation.params["dimension_numbers"].rhs_spec[0]], 1)
    if name.startswith(("cum", "scatter")):
        return max(shape, default=1)
    return 1
