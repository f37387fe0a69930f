"""A function traced into a program: nested calls inlined, loops' bodies among the steps, each at the user's line."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from handgrad.crosscheck.errors.program.program import Body, Program, Return, Step
from handgrad.crosscheck.errors.program.source import Line, line_of, watching
from handgrad.crosscheck.numerics.interpret import constants_and_carry

# Calls that do nothing but call: their equations join the caller's.
CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "checkpoint",
    "remat",
    "remat2",
}
Where = tuple[Line | None, Any]  # a line, and JAX's record of the stack

UNROLLED = 2000  # steps that a loop may take here; a longer one is one step that JAX runs


def trace(hand: Callable[..., Any], leaves: Sequence[Any], dYs: Sequence[Any]) -> Program:
    """`hand`, (leaves, dYs) -> (Ys, cotangents), as a program without nested calls."""
    with watching() as last:
        # A function of its own: what JAX has traced before it wouldn't run again.
        closed, results_like = jax.make_jaxpr(lambda *given: hand(*given), return_shape=True)(list(leaves), list(dYs))
    n_outputs = len(jax.tree.leaves(results_like[0]))
    tracing = _Tracing()
    consts = [tracing.constant(value) for value in closed.consts]
    arguments = [tracing.new() for _ in closed.jaxpr.invars]
    results, steps = tracing.inline(closed.jaxpr, [*consts, *arguments], None)
    shapes = [np.shape(x) for x in (*leaves, *dYs)]
    slots = arguments[: len(leaves)], arguments[len(leaves) :], results[:n_outputs], results[n_outputs:]
    program = Program(steps, tracing.constants, *slots, tracing.slots, shapes)
    value = last.value if isinstance(last.value, tuple | list) else [last.value]
    program = program._replace(nothing=[one is None for one in value])
    return _with_returns(program, tracing, closed.jaxpr.outvars[n_outputs:], last.line)


def _with_returns(program: Program, tracing: "_Tracing", atoms: Sequence[Any], line: Line | None) -> Program:
    """The program with a last step for each cotangent, at the line that returns it."""
    steps, cotangents = list(program.steps), []
    for slot, atom in zip(program.cotangents, atoms, strict=True):
        cotangents.append(tracing.new())
        avals = [atom.aval], [atom.aval]
        steps.append(Step(tracing.site(), Return(), {}, [slot], [cotangents[-1]], *avals, line))
    return program._replace(steps=steps, cotangents=cotangents, slots=tracing.slots)


class _Tracing:
    """Slots and sites, numbered in the order of the jaxpr."""

    def __init__(self) -> None:
        self.slots = self.sites = 0
        self.constants: dict[int, Any] = {}
        self.last: Where = None, None  # the user's line before: for what JAX and factors do afterwards

    def new(self) -> int:
        self.slots += 1
        return self.slots - 1

    def site(self) -> int:
        self.sites += 1
        return self.sites - 1

    def constant(self, value: Any) -> int:
        slot = self.new()
        extended = jnp.issubdtype(getattr(value, "dtype", np.float64), jax.dtypes.extended)
        self.constants[slot] = value if extended else np.asarray(value)
        return slot

    def inline(self, jaxpr: Any, arguments: Sequence[int], caller: Where | None) -> tuple[list[int], list[Step]]:
        """(slots of the results, steps) of a jaxpr at these slots of its constants and arguments."""
        slot_of: dict[Any, int] = dict(zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=True))
        steps: list[Step] = []

        def read(atom: Any) -> int:
            if isinstance(atom, Literal):
                aval: Any = atom.aval
                return self.constant(np.asarray(atom.val, aval.dtype))
            return slot_of[atom]

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            # What JAX has traced before, as jnp.where, has no line; what follows the user's code has the last one.
            record = equation.source_info.traceback
            line = line_of(record)
            if line is None:
                line, record = caller or self.last
                if caller is None and line is not None:
                    line = line._replace(start=-1, end=-1)  # JAX's step after that expression, not the expression
            self.last = line, record
            called = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            if equation.primitive.name in CALLS and called is not None:
                consts = [self.constant(value) for value in getattr(called, "consts", [])]
                outputs, inner = self.inline(getattr(called, "jaxpr", called), [*consts, *inputs], (line, record))
                steps += inner
            else:
                outputs = [self.new() for _ in equation.outvars]
                avals = [atom.aval for atom in equation.invars], [atom.aval for atom in equation.outvars]
                body = self.body(equation, (line, record)) if equation.primitive.name == "scan" else None
                steps.append(
                    Step(self.site(), equation.primitive, equation.params, inputs, outputs, *avals, line, record, body)
                )
            slot_of.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars], steps

    def body(self, equation: Any, caller: Where) -> Body | None:
        """A scan's body, numbered whether or not it is run here: the numbers must not depend on the shapes."""
        closed, params = equation.params["jaxpr"], equation.params
        consts = [self.constant(value) for value in closed.consts]
        arguments = [self.new() for _ in closed.jaxpr.invars]
        results, steps = self.inline(closed.jaxpr, [*consts, *arguments], caller)
        if params["length"] * sum(step.weight for step in steps) > UNROLLED:
            return None
        return Body(steps, arguments, results, *constants_and_carry(params))
