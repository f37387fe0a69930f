"""The same random numbers in float64: what a function draws in the caller's types is drawn so, and then cast.

Under 64-bit types `jax.random.bernoulli(key, 0.7, shape)` takes other bits of the same key, so that dropout in float64
drops other elements: a gradient of another function.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxprs_in_params

from handgrad.crosscheck.subject.arguments import Leaves

RANDOM = ("random_bits", "threefry2x32", "rng_bit_generator", "random_gamma")
CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2")


class _DrawsDifferError(Exception):
    """The draws of two programs don't correspond, or are where they can't be exchanged."""


def primitives(jaxpr: Any) -> set[str]:
    """The names of all primitives of a program, at whatever depth."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    inner = (one for equation in jaxpr.eqns for one in jaxprs_in_params(equation.params))
    return {equation.primitive.name for equation in jaxpr.eqns}.union(*map(primitives, inner))


def draws(jaxpr: Any) -> bool:
    """Whether a program draws random numbers, at whatever depth."""
    return not primitives(jaxpr).isdisjoint(RANDOM)


def hold(narrow: ClosedJaxpr, wide: ClosedJaxpr) -> Callable[[Leaves], Leaves] | None:
    """The program `wide` with the draws of `narrow`; None where their draws don't correspond.

    Args:
      narrow: a function of a flat list of arrays, traced in the caller's types.
      wide: the same function, traced in float64.
    """
    twins = list(_drawn(narrow))
    if [_name(twin) for twin in twins] != [_name(other) for other in _drawn(wide)]:
        return None

    def held(leaves: Leaves) -> Leaves:
        return _evaluate(wide, leaves, iter(twins))

    try:
        jax.eval_shape(held, [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in wide.in_avals])
    except _DrawsDifferError:
        return None
    return held


def _evaluate(closed: ClosedJaxpr, arguments: Leaves, twins: Iterator[JaxprEqn]) -> Leaves:
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        inner = _called(equation)
        if _draw(equation):
            twin = next(twins)
            cast = [_as(x, atom.aval) for x, atom in zip(inputs, twin.invars, strict=True)]
            outputs = [_as(y, v.aval) for y, v in zip(_bind(twin, cast), equation.outvars, strict=True)]
        elif inner is not None and draws(inner):
            outputs = _evaluate(inner, inputs, twins)
        elif _random(equation):
            raise _DrawsDifferError(f"draws inside {equation.primitive.name}")
        else:
            outputs = _bind(equation, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _drawn(closed: ClosedJaxpr) -> Iterator[JaxprEqn]:
    """The equations that draw, in order: the outermost of jax.random's own functions."""
    for equation in closed.jaxpr.eqns:
        if _draw(equation):
            yield equation
        elif (inner := _called(equation)) is not None:
            yield from _drawn(inner)


def _draw(equation: JaxprEqn) -> bool:
    own = hasattr(jax.random, str(equation.params.get("name", "")).removeprefix("_"))
    return equation.primitive.name in RANDOM or (_called(equation) is not None and own and _random(equation))


def _random(equation: JaxprEqn) -> bool:
    return equation.primitive.name in RANDOM or any(draws(inner) for inner in jaxprs_in_params(equation.params))


def _called(equation: JaxprEqn) -> ClosedJaxpr | None:
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    if equation.primitive.name not in CALLS or inner is None:
        return None
    if isinstance(inner, ClosedJaxpr):
        return inner
    return None if inner.constvars else ClosedJaxpr(inner, ())


def _name(equation: JaxprEqn) -> str:
    return str(equation.params.get("name", equation.primitive.name))


def _bind(equation: JaxprEqn, inputs: Leaves) -> Leaves:
    outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _as(value: Any, aval: Any) -> Any:
    if jnp.shape(value) != aval.shape:
        raise _DrawsDifferError("draws of another shape")
    same = jnp.issubdtype(aval.dtype, jax.dtypes.extended) or jnp.result_type(value) == aval.dtype
    return value if same else jnp.asarray(value).astype(aval.dtype)
