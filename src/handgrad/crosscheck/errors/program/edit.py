"""One edit of a program, and the ways to make one."""

from collections.abc import Callable
from typing import Any, NamedTuple

from handgrad.crosscheck.errors.program.program import Frame

Change = Callable[[Frame], list[Any]]


class Edit(NamedTuple):
    """Another computation in one step's place.

    Attributes:
      kind: what sort of error it makes, as "dropped term".
      words: what the step does instead, as "the second term left out": the same at every shape.
      change: the step's outputs instead. It works for any shapes, on NumPy arrays and on tracers.
    """

    kind: str
    words: str
    change: Change


def of_two(kind: str, words: str, function: Callable[[Any, Any], Any]) -> Edit:
    """Another function of the two operands."""
    return Edit(kind, words, lambda frame: [function(frame.inputs[0], frame.inputs[1])])


def of_output(which: int, change: Callable[[Any, Any], Any]) -> Change:
    """The step with one output changed by change(numpy or jax.numpy, output)."""
    return lambda frame: [change(frame.xp, y) if i == which else y for i, y in enumerate(frame.outputs())]


def with_axes_exchanged(which: int, one: int, two: int) -> Change:
    """The step with two axes of one operand exchanged."""

    def change(frame: Frame) -> list[Any]:
        swapped = frame.xp.swapaxes(frame.inputs[which], one, two)
        return frame.run([swapped if i == which else x for i, x in enumerate(frame.inputs)])

    return change
