"""What an equation of a backward program could compute instead: made, it is a mutant; tried, it is a repair."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from handgrad.crosscheck.errors.gradient import is_gradient
from handgrad.crosscheck.errors.program.lookalikes import FLIPPED, MISTAKEN, OTHER_OF_TWO, UNARY
from handgrad.crosscheck.errors.program.program import Frame, Step

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


def edits(step: Step) -> Iterator[Edit]:
    """Everything that this step could do instead, by the name of its primitive."""
    name = step.name
    yield from _TABLE.get(name, lambda step: ())(step)
    if name in UNARY and _keeps_type(step):
        kind = {"neg": "sign of a term", "transpose": "wrong axis", "conj": "conjugate"}.get(name, "function left out")
        yield Edit(kind, f"{name} left out", lambda frame: [frame.inputs[0]])
    if name == "convert_element_type" and is_gradient(step.avals_in[0]) and is_gradient(step.avals_out[0]):
        yield Edit("rounded", "the cast left out", lambda frame: [frame.inputs[0]])
    for other, function in MISTAKEN.get(name, ()):
        yield Edit(
            "another function",
            f"{other} instead of {name}",
            lambda frame, function=function: [function(frame.xp, frame.inputs[0])],
        )
    if isinstance(step.params.get("reverse"), bool):
        yield Edit("wrong direction", "the other direction", _other_direction)
    if name in ("add", "add_any", "sub", "mul", "div"):
        yield from _implicit_broadcast(step)
    if name == "scatter":
        yield Edit("overwritten", "add instead of set", _added_up)
    if name in _PLACES:
        yield from _off_by_one(step)


def gross(step: Step) -> Iterator[Edit]:
    """What only a mutant is made of: an output doubled, negated, zero, rolled by one."""
    for i, aval in enumerate(step.avals_out):
        if is_gradient(aval):
            which = "" if len(step.avals_out) == 1 else f"output {i}: "
            yield Edit("doubled intermediate", f"{which}× 2", _output(i, lambda xp, y: 2 * y))
            yield Edit("sign of an intermediate", f"{which}the sign flipped", _output(i, lambda xp, y: -y))
            yield Edit("zeroed intermediate", f"{which}zero", _output(i, lambda xp, y: 0 * y))


def _other_direction(frame: Frame) -> list[Any]:
    return frame.run(frame.inputs, reverse=not frame.step.params["reverse"])


def _added_up(frame: Frame) -> list[Any]:
    """A scatter whose updates of one place add up."""
    kept = ("indices_are_sorted", "unique_indices", "mode")
    options = {name: value for name, value in frame.step.params.items() if name in kept}
    operand, places, updates = frame.inputs
    y = jax.lax.scatter_add(operand, places, updates, frame.step.params["dimension_numbers"], **options)
    return [y if isinstance(y, Tracer) else np.asarray(y)]


def _of_two(kind: str, words: str, function: Callable[[Any, Any], Any]) -> Edit:
    """Another function of the two operands."""
    return Edit(kind, words, lambda frame: [function(frame.inputs[0], frame.inputs[1])])


def _sum_of_terms(step: Step) -> Iterator[Edit]:
    sign = -1 if step.name == "sub" else 1
    yield _of_two("dropped term", "the first term left out", lambda a, b: sign * b)
    yield _of_two("dropped term", "the second term left out", lambda a, b: a)
    yield _of_two("sign of a term", "the second term's sign flipped", lambda a, b: a - sign * b)
    if sign == -1:
        yield _of_two("swapped operands", "the terms exchanged", lambda a, b: b - a)
    else:
        yield _of_two("sign of a term", "the first term's sign flipped", lambda a, b: b - a)
        yield _of_two("sum for a product", "a product instead of the sum", lambda a, b: a * b)


def _product(step: Step) -> Iterator[Edit]:
    yield _of_two("dropped factor", "the first factor left out", lambda a, b: b)
    yield _of_two("dropped factor", "the second factor left out", lambda a, b: a)
    yield _of_two("sum for a product", "a sum instead of the product", lambda a, b: a + b)
    if is_gradient(step.avals_out[0]):
        yield _of_two("product for a quotient", "a quotient instead of the product", lambda a, b: a / b)
        yield _of_two("product for a quotient", "the inverse quotient instead of the product", lambda a, b: b / a)


def _quotient(step: Step) -> Iterator[Edit]:
    yield _of_two("dropped factor", "the division left out", lambda a, b: a)
    yield _of_two("dropped factor", "the numerator left out", lambda a, b: 1 / b)
    yield _of_two("swapped operands", "the quotient upside down", lambda a, b: b / a)
    yield _of_two("product for a quotient", "a product instead of the quotient", lambda a, b: a * b)


def _power(step: Step) -> Iterator[Edit]:
    def powered(off: float, times: float = 1.0) -> Change:
        def change(frame: Frame) -> list[Any]:
            power = frame.step.params["y"] if frame.step.name == "integer_pow" else frame.inputs[1]
            return [frame.inputs[0] ** (1.0 * power * times + off)]

        return change

    for off in (1, -1):
        yield Edit("exponent", f"the exponent {off:+d}".replace("-", "− ").replace("+", "+ "), powered(off))
    yield Edit("exponent", "the exponent's sign flipped", powered(0, -1.0))
    yield Edit("exponent", "half the exponent", powered(0, 0.5))
    yield Edit("exponent", "twice the exponent", powered(0, 2.0))


def _summed(step: Step) -> tuple[int, ...]:
    """The axes of the first operand that a reduce_sum, or the contraction of a dot_general, sums over."""
    return tuple(step.params["dimension_numbers"][0][0]) if step.name == "dot_general" else tuple(step.params["axes"])


def count(step: Step) -> int:
    """How many terms one element of a sum has."""
    return int(np.prod([step.avals_in[0].shape[axis] for axis in _summed(step)]))


def _reduction(step: Step) -> Iterator[Edit]:
    """reduce_sum, and the contraction of dot_general: both are sums over axes of the first operand."""
    axes, shape = _summed(step), step.avals_in[0].shape

    def only(first: bool) -> Change:
        def change(frame: Frame) -> list[Any]:
            axes, ndim = _summed(frame.step), frame.inputs[0].ndim
            kept = [slice(0, 1) if axis in axes else slice(None) for axis in range(ndim)]
            if not first:
                kept = [slice(0, -1) if axis == axes[0] else slice(None) for axis in range(ndim)]
            return frame.run([_only(frame, frame.inputs[0], tuple(kept)), *frame.inputs[1:]])

        return change

    if count(step) > 1:
        yield Edit("missing reduction", "the first element instead of the sum", only(first=True))
        yield Edit("last one dropped from a sum", "the last element left out of the sum", only(first=False))
        yield Edit(
            "mean for a sum", "a mean instead of the sum", lambda frame: [frame.outputs()[0] / count(frame.step)]
        )
    if step.name == "dot_general":
        yield from _transposed_operands(step)
    elif len(axes) == 1:
        for other in range(len(shape)):
            if other != axes[0]:
                words = f"the sum over axis {other} instead of axis {axes[0]}"
                yield Edit("wrong axis", words, lambda frame, other=other: frame.run(frame.inputs, axes=(other,)))


def _transposed_operands(step: Step) -> Iterator[Edit]:
    """A contraction over another axis of an operand: that operand transposed."""
    for i, aval in enumerate(step.avals_in):
        for axis in range(aval.ndim - 1):
            if aval.shape[axis] == aval.shape[axis + 1]:
                words = f"operand {i} transposed" + ("" if aval.ndim == 2 else f" (axes {axis} and {axis + 1})")
                yield Edit("transposed operand", words, _input(i, axis, axis + 1))


def _broadcast(step: Step) -> Iterator[Edit]:
    """A vector along the rows instead of the columns."""
    before, after, axes = step.avals_in[0].shape, step.avals_out[0].shape, step.params["broadcast_dimensions"]
    kept = {axis for length, axis in zip(before, axes, strict=True) if length > 1}
    for one in kept:
        for other in set(range(len(after))) - kept:
            if after[one] == after[other]:
                swapped = _output(0, lambda xp, y, one=one, other=other: xp.swapaxes(y, one, other))
                yield Edit("wrong axis", f"the operand along axis {other} instead of {one}", swapped)


def _implicit_broadcast(step: Step) -> Iterator[Edit]:
    """The same where the operation itself stretches one operand."""
    after = step.avals_out[0].shape
    for i, aval in enumerate(step.avals_in):
        for one, kept in enumerate(aval.shape):
            for other, stretched in enumerate(aval.shape):
                if stretched == 1 < kept == after[other]:
                    words = f"operand {i} along axis {other} instead of {one}"
                    yield Edit("wrong axis", words, _input(i, one, other))


def _reshape(step: Step) -> Iterator[Edit]:
    before, after = step.avals_in[0].shape, step.avals_out[0].shape
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        yield Edit(
            "column-major",
            "column-major order",
            lambda frame: [frame.xp.reshape(frame.inputs[0], frame.step.params["new_sizes"], order="F")],
        )


def _transpose(step: Step) -> Iterator[Edit]:
    """Two of the axes exchanged after all."""
    shape = step.avals_out[0].shape
    for one, two in pairwise(range(len(shape))):
        if len(shape) > 2 and shape[one] == shape[two]:
            swapped = _output(0, lambda xp, y, one=one, two=two: xp.swapaxes(y, one, two))
            yield Edit("wrong axis", f"axes {one} and {two} exchanged", swapped)


def _selection(step: Step) -> Iterator[Edit]:
    if len(step.avals_in) == 3:
        yield Edit(
            "wrong branch",
            "the cases exchanged",
            lambda frame: frame.run([frame.inputs[0], frame.inputs[2], frame.inputs[1]]),
        )
    for i in range(1, len(step.avals_in)):
        yield Edit("one branch alone", f"case {i - 1} always", lambda frame, i=i: [frame.inputs[i]])


def _branch(step: Step) -> Iterator[Edit]:
    def next_branch(frame: Frame) -> list[Any]:
        index, n = frame.inputs[0], len(frame.step.params["branches"])
        return frame.run([((index + 1) % n).astype(index.dtype), *frame.inputs[1:]])

    if len(step.params["branches"]) > 1:
        yield Edit("wrong branch", "the next branch", next_branch)


def _choice_of_two(step: Step) -> Iterator[Edit]:
    """max, min, and, or: the other one, or one operand alone."""
    name, function = OTHER_OF_TWO[step.name]
    yield Edit("max for min", f"{name} instead of {step.name}", lambda frame: [function(frame.xp, *frame.inputs)])
    for i, which in enumerate(("first", "second")):
        yield Edit("one branch alone", f"the {which} operand alone", lambda frame, i=i: [frame.inputs[i]])


def _extreme(step: Step) -> Iterator[Edit]:
    other = "min" if step.name == "reduce_max" else "max"

    def change(frame: Frame) -> list[Any]:
        return [getattr(frame.xp, other)(frame.inputs[0], axis=tuple(frame.step.params["axes"]))]

    yield Edit("max for min", f"the {other}imum instead", change)


def _comparison(step: Step) -> Iterator[Edit]:
    words, function = FLIPPED[step.name]
    yield _of_two("flipped comparison", f"{words} instead", function)


def _clamp(step: Step) -> Iterator[Edit]:
    yield Edit("function left out", "clamp left out", lambda frame: [frame.inputs[1]])


def _concatenation(step: Step) -> Iterator[Edit]:
    for i, (one, two) in enumerate(pairwise(step.avals_in)):
        if one.ndim == two.ndim:
            order = [*range(i), i + 1, i, *range(i + 2, len(step.avals_in))]
            words = f"parts {i} and {i + 1} exchanged"
            change = lambda frame, order=order: frame.run([frame.inputs[j] for j in order])  # noqa: E731
            yield Edit("swapped operands", words, change)


def _off_by_one(step: Step) -> Iterator[Edit]:
    for i, aval in enumerate(step.avals_out):
        for axis in range(aval.ndim):
            if aval.shape[axis] > 1:
                words = f"a roll by one along axis {axis}"
                yield Edit("off by one", words, _output(i, lambda xp, y, axis=axis: xp.roll(y, 1, axis)))


def _index(step: Step) -> Iterator[Edit]:
    yield Edit("off by one", "+ 1", _output(0, lambda xp, y: y + 1))
    yield Edit("off by one", "− 1", _output(0, lambda xp, y: y - 1))


_TABLE: dict[str, Callable[[Step], Iterator[Edit]]] = {
    **dict.fromkeys(("add", "add_any", "sub"), _sum_of_terms),
    **dict.fromkeys(("reduce_sum", "dot_general"), _reduction),
    **dict.fromkeys(("max", "min", "and", "or"), _choice_of_two),
    **dict.fromkeys(("reduce_max", "reduce_min"), _extreme),
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), _comparison),
    **dict.fromkeys(("integer_pow", "pow"), _power),
    **dict.fromkeys(("iota", "argmax", "argmin"), _index),
    "mul": _product,
    "div": _quotient,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "select_n": _selection,
    "cond": _branch,
    "clamp": _clamp,
    "concatenate": _concatenation,
}

# What moves numbers about.
_PLACES = {"gather", "slice", "dynamic_slice", "dynamic_update_slice", "pad", "scatter", "scatter-add", "split"}


def _keeps_type(step: Step) -> bool:
    (operand,), (result,) = step.avals_in[:1], step.avals_out[:1]
    return operand.shape == result.shape and operand.dtype == result.dtype


def _output(which: int, change: Callable[[Any, Any], Any]) -> Change:
    return lambda frame: [change(frame.xp, y) if i == which else y for i, y in enumerate(frame.outputs())]


def _input(which: int, one: int, two: int) -> Change:
    """The step with two axes of one operand exchanged."""

    def change(frame: Frame) -> list[Any]:
        swapped = frame.xp.swapaxes(frame.inputs[which], one, two)
        return frame.run([swapped if i == which else x for i, x in enumerate(frame.inputs)])

    return change


def _only(frame: Frame, array: Any, kept: tuple[slice, ...]) -> Any:
    """The array with zeros outside of `kept`: of the same shape, so that nothing is compiled anew."""
    mask = np.zeros(array.shape, bool)
    mask[kept] = True
    return frame.xp.where(mask, array, 0 * array)
