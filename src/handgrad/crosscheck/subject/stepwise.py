"""A function run step by step on concrete arrays, as JAX runs it outside of `jit`, but with each primitive in NumPy.

JAX compiles a program for every primitive at every shape, tens of milliseconds each, before it runs it once.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Trace, eval_context
from jax.extend.core import ClosedJaxpr, Literal, set_current_trace

from handgrad.crosscheck.numerics.interpret import RULES, constants_and_carry, evaluate
from handgrad.crosscheck.subject.arguments import Function
from handgrad.crosscheck.subject.held import CALLS

STEPS = 2000  # equations that a loop may come to here; a longer one is compiled by JAX


def stepwise(in_numpy: bool) -> AbstractContextManager[None]:
    """Where functions of JAX's arrays run on concrete numbers: in NumPy, or as JAX runs them."""
    return set_current_trace(_Stepwise()) if in_numpy else nullcontext()


def interpreted(function: Function, *arguments: Any) -> Any:
    """function(*arguments) traced as by `jit`, and its program run in NumPy."""
    closed, like = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return jax.tree.unflatten(jax.tree.structure(like), _run(closed, jax.tree.leaves(arguments)))


class _Stepwise(Trace):
    """Where JAX's primitives arrive that meet no tracer."""

    def stage_value(self, val: Any) -> Any:
        return val

    def process_primitive(self, primitive: Any, args: Sequence[Any], params: dict[str, Any], /) -> Any:
        with eval_context():
            avals = primitive.abstract_eval(*map(jax.typeof, args), **params)[0]
            several = avals if primitive.multiple_results else [avals]
            known = primitive.name in RULES or primitive.name in STRUCTURED
            # NumPy's arrays have no weak type, which decides the dtype of what comes after.
            if not known or any(getattr(aval, "weak_type", False) and aval.shape for aval in several):
                return primitive.bind(*args, **primitive.get_bind_params(params))
            given = [np.array(x) if isinstance(x, np.ndarray) else x for x in args]  # its owner may write to it later
            outputs = _step(primitive, given, params, several)
            arrays = [_of_jax(y, aval) for y, aval in zip(outputs, several, strict=True)]
        return arrays if primitive.multiple_results else arrays[0]

    def process_call(self, primitive: Any, f: Any, args: Sequence[Any], params: dict[str, Any], /) -> Any:
        with set_current_trace(self):
            return f.call_wrapped(*args)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, args: Sequence[Any], /, **_: Any) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*args)

    def process_custom_vjp_call(
        self, primitive: Any, fun: Any, fwd: Any, bwd: Any, args: Sequence[Any], /, **_: Any
    ) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*args)


def _of_jax(y: Any, aval: Any) -> Any:
    if not isinstance(y, np.ndarray | np.generic):
        return y
    return jnp.asarray(y.item()) if aval.weak_type else jax.device_put(y)


def _step(primitive: Any, inputs: Sequence[Any], params: dict[str, Any], avals: Sequence[Any]) -> list[Any]:
    """One equation's outputs in NumPy."""
    structured = STRUCTURED.get(primitive.name)
    found = structured(inputs, params) if structured else None
    if found is None:
        arrays = [_in_numpy(x) for x in inputs]
        found = evaluate(primitive, arrays, params, [aval.dtype for aval in avals])
    return found


def _in_numpy(x: Any) -> Any:
    """As NumPy's array; a random key stays as it is."""
    return x if jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended) else np.asarray(x, jnp.result_type(x))


def _run(closed: Any, arguments: Sequence[Any]) -> list[Any]:
    """A program's outputs."""
    jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], map(_in_numpy, [*consts, *arguments]), strict=True))

    def read(atom: Any) -> Any:
        aval: Any = atom.aval
        return np.asarray(atom.val, aval.dtype) if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        avals = [atom.aval for atom in equation.outvars]
        outputs = _step(equation.primitive, [read(atom) for atom in equation.invars], equation.params, avals)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _call(inputs: Sequence[Any], params: dict[str, Any]) -> list[Any] | None:
    called = params.get("jaxpr", params.get("call_jaxpr"))
    return None if called is None else _run(called, inputs)


def _cond(inputs: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    branches = params["branches"]
    return _run(branches[min(max(int(inputs[0]), 0), len(branches) - 1)], inputs[1:])


def _scan(inputs: Sequence[Any], params: dict[str, Any]) -> list[Any] | None:
    closed, length = params["jaxpr"], params["length"]
    if not 0 < length * len(closed.jaxpr.eqns) <= STEPS:
        return None
    constants, carried = constants_and_carry(params)
    fixed, carry, sliced = inputs[:constants], inputs[constants : constants + carried], inputs[constants + carried :]
    fixed, carry, sliced = (list(map(_in_numpy, part)) for part in (fixed, carry, sliced))
    rows: list[list[Any]] = [[]] * length
    for k in reversed(range(length)) if params["reverse"] else range(length):
        results = _run(closed, [*fixed, *carry, *(x[k] for x in sliced)])
        carry, rows[k] = results[:carried], results[carried:]
    return [*carry, *map(np.stack, zip(*rows, strict=True))]


STRUCTURED = {**dict.fromkeys(CALLS, _call), "cond": _cond, "scan": _scan}
