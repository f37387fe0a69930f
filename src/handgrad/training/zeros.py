"""Which optimizers leave a parameter as it is where its gradient is 0: proven on the jaxpr of their update.

Where the new parameter is f(g, p), element by element, with f(0, p) = p for every p, the rows of a table that no
example names need no update. Plain SGD is such a step, with any schedule. Momentum and Adam are not, since their states
move on without a gradient, nor is weight decay, which shrinks the parameter.
"""

from enum import Enum

import jax.numpy as jnp
from jax.extend import core
from jax.typing import DTypeLike

from handgrad.training.equations import Atom, Equation, Program, Variable, is_fill, shape_of

# Elementwise primitives that map 0 to 0.
KEEP_ZERO = "abs convert_element_type copy floor neg round sign sqrt square stop_gradient tanh"


class Kind(Enum):
    """What is known of a value in the elements whose gradient is 0."""

    ZERO = "0"
    SAME = "the old parameter"
    SHARED = "a number that depends on no gradient and no parameter, as a learning rate; or an array filled with it"
    UNKNOWN = "nothing"


def keeps_untouched(program: Program, grad: Variable, param: Variable, new: Atom, dtype: DTypeLike) -> bool:
    """Whether `new` is elementwise in `grad`, `param` and shared scalars, and is `param` where `grad` is 0.

    Shared scalars are taken to be finite: only a learning rate that is not would make 0 times it NaN.

    Args:
      program: the optimizer's step.
      dtype: the parameter's.
    """
    kinds = {grad: Kind.ZERO, param: Kind.SAME}

    def kind(atom: Atom) -> Kind:
        if isinstance(atom, core.Literal):
            return Kind.SHARED
        return kinds.get(atom, Kind.UNKNOWN if atom.shape else Kind.SHARED)

    for place in sorted(program.behind([new])):
        equation = program.eqns[place]
        of_outputs = _kind(equation, [kind(atom) for atom in equation.invars], dtype)
        kinds |= dict.fromkeys(equation.outvars, of_outputs)
    return kind(new) is Kind.SAME


def _kind(equation: Equation, given: list[Kind], dtype: DTypeLike) -> Kind:
    """The kind of an equation's outputs, from those of its inputs."""
    if all(kind is Kind.SHARED and shape_of(atom) == () for kind, atom in zip(given, equation.invars, strict=True)):
        if is_fill(equation) and _literal(equation.invars[0]) == 0:
            return Kind.ZERO
        scalars = all(shape_of(var) == () for var in equation.outvars)
        return Kind.SHARED if scalars or is_fill(equation) else Kind.UNKNOWN
    match equation.primitive.name, given:
        case "mul", [Kind.ZERO, Kind.ZERO | Kind.SHARED] | [Kind.SHARED, Kind.ZERO]:
            return Kind.ZERO
        case "div", [Kind.ZERO, Kind.SHARED] if _literal(equation.invars[1]):
            return Kind.ZERO
        case "add" | "sub", [Kind.ZERO | Kind.SAME as kind, Kind.ZERO]:
            return kind
        case "add", [Kind.ZERO, Kind.SAME]:
            return Kind.SAME
        case "max" | "min" as name, [Kind.ZERO, Kind.SHARED] | [Kind.SHARED, Kind.ZERO]:
            bound = _literal(equation.invars[given.index(Kind.SHARED)])
            return Kind.ZERO if bound is not None and (bound <= 0 if name == "max" else bound >= 0) else Kind.UNKNOWN
        case "select_n", [Kind.SHARED, Kind.ZERO | Kind.SAME as kind, *others] if set(others) <= {kind}:
            return kind
        case "convert_element_type", [Kind.SAME]:  # to a dtype that holds each number of the parameter's
            new = equation.params["new_dtype"]
            return Kind.SAME if jnp.promote_types(dtype, new) == new else Kind.UNKNOWN
        case name, [Kind.ZERO] if name in KEEP_ZERO.split():
            return Kind.ZERO
    return Kind.UNKNOWN


def _literal(atom: Atom) -> float | None:
    """The value of a literal, None of anything else."""
    return float(atom.val) if isinstance(atom, core.Literal) else None
