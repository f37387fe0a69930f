"""An optimizer's step as a flat list of equations: whose gradients each needs, and which function it comes from.

It is the jaxpr of the step, in which branches (`lax.cond`) can be opened: the equations of all cases are then in the
list, and a `select_n` for each output selects the right one, so that one output can be computed without the others.
"""

import functools
import operator
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Array, PyTree

NOTHING: frozenset[int] = frozenset()
JAX = str(Path(jax.__file__).parent)


class Variable:
    """A value in the list; two of them are never equal."""

    def __init__(self, var: core.Var):
        self.shape: tuple[int, ...] = getattr(var.aval, "shape", ())


Atom = Variable | core.Literal
Values = dict[Variable, Array]
Needs = dict[Variable, frozenset[int]]


class Equation(NamedTuple):
    """One primitive; the fields are those of JAX's own equations.

    Attributes:
      primitive, params: the operation and its options.
      invars, outvars: its operands and results.
      effects: side effects; empty for arithmetic.
      traceback: where it was traced, or None.
    """

    primitive: core.Primitive
    params: dict[str, Any]
    invars: list[Atom]
    outvars: list[Variable]
    effects: Collection[core.Effect]
    traceback: Any  # jaxlib's

    @property
    def origin(self) -> str:
        """ " in f", f being the innermost function outside JAX that made an `update`, or else is one; "" if unknown."""
        frames = [] if self.traceback is None else self.traceback.frames
        names = [frame.function_name for frame in frames if not frame.file_name.startswith(JAX)]
        updates = (re.match(r"(.+?)(\.<locals>)?\.update", name) for name in names)
        made = next((match[1] for match in updates if match), None)
        return f" in {made or names[0]}" if made or names else ""


class Program(NamedTuple):
    """Equations between inputs and outputs.

    Attributes:
      consts: the values of constants.
      invars, outvars: inputs and outputs; an output may be a literal.
      eqns: in topological order.
    """

    consts: Values
    invars: list[Variable]
    outvars: list[Atom]
    eqns: list[Equation]

    def needs(self, of_inputs: list[frozenset[int]]) -> Needs:
        """For each variable the parameters whose gradients, values and states it needs, given those of the inputs."""
        needs: Needs = dict(zip(self.invars, of_inputs, strict=True))
        for equation in self.eqns:
            needs |= dict.fromkeys(equation.outvars, together(equation, needs))
        return needs

    def behind(self, outputs: Iterable[Atom], known: Iterable[Variable] = ()) -> set[int]:
        """The places of the equations that the outputs depend on, back to what is known."""
        known = set(known)
        wanted = set(_variables(outputs)) - known
        places = set()
        for place in reversed(range(len(self.eqns))):
            equation = self.eqns[place]
            if wanted.intersection(equation.outvars):
                places.add(place)
                wanted |= set(_variables(equation.invars)) - known
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


def traced(step: Callable[..., PyTree], *args: PyTree) -> Program:
    """The equations of a function; nothing is computed."""
    with jax.disable_jit():  # calls of compiled functions would hide what is inside
        jaxpr = jax.make_jaxpr(step)(*args)
    consts: Values = {}
    eqns: list[Equation] = []
    inputs: list[Atom] = [Variable(var) for var in jaxpr.jaxpr.invars]
    return Program(consts, _variables(inputs), _inlined(jaxpr, inputs, consts, eqns), eqns)


def together(equation: Equation, needs: Needs) -> frozenset[int]:
    """All that an equation's inputs need."""
    return functools.reduce(operator.or_, (need(atom, needs) for atom in equation.invars), NOTHING)


def need(atom: Atom, needs: Needs) -> frozenset[int]:
    """What one variable needs; a literal or a constant needs nothing."""
    return NOTHING if isinstance(atom, core.Literal) else needs.get(atom, NOTHING)


def shape_of(atom: Atom) -> tuple[int, ...]:
    """The shape of a variable's or a literal's values."""
    return np.shape(atom.val) if isinstance(atom, core.Literal) else atom.shape


def is_fill(equation: Equation) -> bool:
    """A scalar, broadcast."""
    return equation.primitive.name == "broadcast_in_dim" and shape_of(equation.invars[0]) == ()


def _variables(atoms: Iterable[Atom]) -> list[Variable]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _inlined(jaxpr: core.ClosedJaxpr, inputs: list[Atom], consts: Values, eqns: list[Equation]) -> list[Atom]:
    """Append a jaxpr's constants and equations, with new variables; returns its outputs."""
    inside = jaxpr.jaxpr
    own: dict[core.Var, Atom] = dict(zip(inside.invars, inputs, strict=True))

    def fresh(var: core.Var) -> Variable:
        own[var] = new = Variable(var)
        return new

    def read(atom: core.Var | core.Literal) -> Atom:
        return atom if isinstance(atom, core.Literal) else own[atom]

    consts |= {fresh(var): value for var, value in zip(inside.constvars, jaxpr.consts, strict=True)}
    for one in inside.eqns:
        invars = [read(atom) for atom in one.invars]
        outvars = [fresh(var) for var in one.outvars]
        eqns.append(Equation(one.primitive, one.params, invars, outvars, one.effects, one.source_info.traceback))
    return [read(atom) for atom in inside.outvars]
