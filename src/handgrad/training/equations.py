"""An optimizer's step as a flat list of equations: whose gradients each needs, and which function it is from.

It is the jaxpr of the step in all but one thing: a branch (`lax.cond`) can be opened. Its equations then stand in the
list, those of all its cases, and a `select_n` for each output takes the right one, so that one output can be had
without the others.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend import core

Values = dict[Any, Any]
Needs = dict[Any, frozenset[int]]

NOTHING: frozenset[int] = frozenset()
JAX = str(Path(jax.__file__).parent)


class Variable:
    """A value inside an opened branch; two of them are never equal."""

    def __init__(self, aval: Any):
        self.aval = aval


class Equation(NamedTuple):
    """One primitive; the fields are those of JAX's own equations.

    Attributes:
      primitive, params: what is computed.
      invars, outvars: variables or literals.
      effects: what else it does; empty for arithmetic.
      traceback: of where it was traced, or None.
    """

    primitive: Any
    params: dict[str, Any]
    invars: list[Any]
    outvars: list[Any]
    effects: Any
    traceback: Any

    @property
    def origin(self) -> str:
        """in f, of the innermost function f outside JAX that made an `update`, or else is one; or "" if unknown."""
        frames = [] if self.traceback is None else self.traceback.frames
        names = [frame.function_name for frame in frames if not frame.file_name.startswith(JAX)]
        updates = (re.match(r"(.+?)(\.<locals>)?\.update", name) for name in names)
        made = next((match[1] for match in updates if match), None)
        return f" in {made or names[0]}" if made or names else ""


class Program(NamedTuple):
    """Equations between inputs and outputs.

    Attributes:
      consts: {variable: value}.
      invars, outvars: variables; an output may be a literal.
      eqns: in an order that they can run in.
    """

    consts: Values
    invars: list[Any]
    outvars: list[Any]
    eqns: list[Equation]

    def needs(self, of_inputs: list[frozenset[int]]) -> Needs:
        """{variable: whose gradients, parameters and states it needs}, given whose the inputs are."""
        needs: Needs = dict(zip(self.invars, of_inputs, strict=True))
        for equation in self.eqns:
            needs |= dict.fromkeys(equation.outvars, together(equation, needs))
        return needs

    def behind(self, outputs: list[Any], known: Iterable[Any] = ()) -> set[int]:
        """The places of the equations that the outputs come from, back to what is known."""
        known = set(known)
        wanted = {atom for atom in outputs if not isinstance(atom, core.Literal)} - known
        places = set()
        for place in reversed(range(len(self.eqns))):
            equation = self.eqns[place]
            if wanted.intersection(equation.outvars):
                places.add(place)
                wanted |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)} - known
        return places

    def opened(self, places: set[int]) -> "Program":
        """The same program with the branches at these places opened."""
        consts, eqns = dict(self.consts), []
        for place, equation in enumerate(self.eqns):
            if place not in places:
                eqns.append(equation)
                continue
            which, *operands = equation.invars
            cases = [_inlined(branch, operands, consts, eqns) for branch in equation.params["branches"]]
            for outvar, *values in zip(equation.outvars, *cases, strict=True):
                select = Equation(jax.lax.select_n_p, {}, [which, *values], [outvar], set(), equation.traceback)
                eqns.append(select)
        return self._replace(consts=consts, eqns=eqns)


def traced(step: Callable[..., Any], *args: Any) -> Program:
    """The equations of a function; nothing is computed."""
    with jax.disable_jit():  # calls of compiled functions would hide what is inside
        jaxpr = jax.make_jaxpr(step)(*args)
    consts, eqns = {}, []
    inputs = list(jaxpr.jaxpr.invars)
    return Program(consts, inputs, _inlined(jaxpr, inputs, consts, eqns), eqns)


def together(equation: Equation, needs: Needs) -> frozenset[int]:
    """All that an equation's inputs need."""
    return functools.reduce(operator.or_, (need(atom, needs) for atom in equation.invars), NOTHING)


def need(atom: Any, needs: Needs) -> frozenset[int]:
    """What one variable needs; a literal or a constant needs nothing."""
    return NOTHING if isinstance(atom, core.Literal) else needs.get(atom, NOTHING)


def _inlined(jaxpr: core.ClosedJaxpr, inputs: list[Any], consts: Values, eqns: list[Equation]) -> list[Any]:
    """Append a jaxpr's equations, with variables of their own, and its constants; its outputs come back."""
    inside = jaxpr.jaxpr
    own: Values = dict(zip(inside.invars, inputs, strict=True))

    def fresh(var: Any) -> Variable:
        own[var] = Variable(var.aval)
        return own[var]

    def read(atom: Any) -> Any:
        return atom if isinstance(atom, core.Literal) else own[atom]

    consts |= {fresh(var): value for var, value in zip(inside.constvars, jaxpr.consts, strict=True)}
    for one in inside.eqns:
        invars = [read(atom) for atom in one.invars]
        outvars = [fresh(var) for var in one.outvars]
        eqns.append(Equation(one.primitive, one.params, invars, outvars, one.effects, one.source_info.traceback))
    return [read(atom) for atom in inside.outvars]
