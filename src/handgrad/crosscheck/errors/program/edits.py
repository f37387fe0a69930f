"""What an equation of a backward program could compute instead: made, it is a mutant; tried, it is a repair."""

from collections.abc import Iterator
from typing import Any

from handgrad.crosscheck.errors.gradient import is_gradient
from handgrad.crosscheck.errors.program.arithmetic import ARITHMETIC
from handgrad.crosscheck.errors.program.arrangement import ARRANGEMENT, implicit_broadcast, off_by_one
from handgrad.crosscheck.errors.program.edit import Edit, of_output
from handgrad.crosscheck.errors.program.lookalikes import MISTAKEN, UNARY
from handgrad.crosscheck.errors.program.program import Frame, Step

TABLE = {**ARITHMETIC, **ARRANGEMENT}

# What a primitive is called where a line leaves it out.
CALLED = {"neg": "the minus sign", "rev": "the reversal", "integer_pow": "the power", "transpose": "the transpose"}
CALLED |= {"conj": "the conjugate", "logistic": "the sigmoid", "square": "the square", "abs": "the absolute value"}

# What moves numbers about.
_PLACES = {"gather", "slice", "dynamic_slice", "dynamic_update_slice", "pad", "scatter", "scatter-add", "split"}


def edits(step: Step) -> Iterator[Edit]:
    """Everything that this step could do instead, by the name of its primitive."""
    name = step.name
    yield from TABLE.get(name, lambda step: ())(step)
    if name in UNARY and _keeps_type(step):
        kind = {"neg": "sign of a term", "transpose": "wrong axis", "conj": "conjugate"}.get(name, "function left out")
        yield Edit(kind, f"{CALLED.get(name, name)} left out", lambda frame: [frame.inputs[0]])
    if name == "convert_element_type" and is_gradient(step.avals_in[0]) and is_gradient(step.avals_out[0]):
        yield Edit("rounded", "the cast left out", lambda frame: [frame.inputs[0]])
    for other, function in MISTAKEN.get(name, ()):
        yield Edit(
            "another function",
            f"{other} instead of {name}",
            lambda frame, function=function: [function(frame.xp, frame.inputs[0])],
        )
    if isinstance(step.params.get("reverse"), bool):
        yield Edit("wrong direction", _from(step), _other_direction)
    if name in ("add", "add_any", "sub", "mul", "div"):
        yield from implicit_broadcast(step)
    if name in _PLACES:
        yield from off_by_one(step)


def gross(step: Step) -> Iterator[Edit]:
    """What only a mutant is made of: an output doubled, negated, zero."""
    for i, aval in enumerate(step.avals_out):
        if is_gradient(aval):
            which = "" if len(step.avals_out) == 1 else f"output {i}: "
            yield Edit("doubled intermediate", f"{which}× 2", of_output(i, lambda xp, y: 2 * y))
            yield Edit("sign of an intermediate", f"{which}the sign flipped", of_output(i, lambda xp, y: -y))
            yield Edit("zeroed intermediate", f"{which}zero", of_output(i, lambda xp, y: 0 * y))


def _from(step: Step) -> str:
    taken = {"cumsum": "the sum taken", "cumprod": "the product taken", "scan": "the loop run"}
    end = "start" if step.params["reverse"] else "end"
    return f"{taken.get(step.name, 'the scan taken')} from the {end}"


def _other_direction(frame: Frame) -> list[Any]:
    return frame.run(frame.inputs, reverse=not frame.step.params["reverse"])


def _keeps_type(step: Step) -> bool:
    (operand,), (result,) = step.avals_in[:1], step.avals_out[:1]
    return operand.shape == result.shape and operand.dtype == result.dtype
