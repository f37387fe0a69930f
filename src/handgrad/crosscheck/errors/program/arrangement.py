"""What sums and arrangements could do instead: other axes, other orders, other places."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from handgrad.crosscheck.errors.program.edit import Change, Edit, of_output, with_axes_exchanged
from handgrad.crosscheck.errors.program.program import Frame, Step


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
                yield Edit("transposed operand", words, with_axes_exchanged(i, axis, axis + 1))


def _broadcast(step: Step) -> Iterator[Edit]:
    """A vector along the rows instead of the columns."""
    before, after, axes = step.avals_in[0].shape, step.avals_out[0].shape, step.params["broadcast_dimensions"]
    kept = {axis for length, axis in zip(before, axes, strict=True) if length > 1}
    for one in kept:
        for other in set(range(len(after))) - kept:
            if after[one] == after[other]:
                swapped = of_output(0, lambda xp, y, one=one, other=other: xp.swapaxes(y, one, other))
                yield Edit("wrong axis", f"the operand along axis {other} instead of {one}", swapped)


def implicit_broadcast(step: Step) -> Iterator[Edit]:
    """The same where the operation itself stretches one operand."""
    after = step.avals_out[0].shape
    for i, aval in enumerate(step.avals_in):
        for one, kept in enumerate(aval.shape):
            for other, stretched in enumerate(aval.shape):
                if stretched == 1 < kept == after[other]:
                    words = f"operand {i} along axis {other} instead of {one}"
                    yield Edit("wrong axis", words, with_axes_exchanged(i, one, other))


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
            swapped = of_output(0, lambda xp, y, one=one, two=two: xp.swapaxes(y, one, two))
            yield Edit("wrong axis", f"axes {one} and {two} exchanged", swapped)


def _concatenation(step: Step) -> Iterator[Edit]:
    for i, (one, two) in enumerate(pairwise(step.avals_in)):
        if one.ndim == two.ndim:
            order = [*range(i), i + 1, i, *range(i + 2, len(step.avals_in))]
            words = f"parts {i} and {i + 1} exchanged"
            change = lambda frame, order=order: frame.run([frame.inputs[j] for j in order])  # noqa: E731
            yield Edit("swapped operands", words, change)


def off_by_one(step: Step) -> Iterator[Edit]:
    """What a step moves, moved by one more."""
    for i, aval in enumerate(step.avals_out):
        for axis in range(aval.ndim):
            if aval.shape[axis] > 1:
                words = f"a roll by one along axis {axis}"
                yield Edit("off by one", words, of_output(i, lambda xp, y, axis=axis: xp.roll(y, 1, axis)))


def _index(step: Step) -> Iterator[Edit]:
    yield Edit("off by one", "+ 1", of_output(0, lambda xp, y: y + 1))
    yield Edit("off by one", "− 1", of_output(0, lambda xp, y: y - 1))


def _added_up(frame: Frame) -> list[Any]:
    """A scatter whose updates of one place add up."""
    kept = ("indices_are_sorted", "unique_indices", "mode")
    options = {name: value for name, value in frame.step.params.items() if name in kept}
    operand, places, updates = frame.inputs
    y = jax.lax.scatter_add(operand, places, updates, frame.step.params["dimension_numbers"], **options)
    return [y if isinstance(y, Tracer) else np.asarray(y)]


def _only(frame: Frame, array: Any, kept: tuple[slice, ...]) -> Any:
    """The array with zeros outside of `kept`: of the same shape, so that nothing is compiled anew."""
    mask = np.zeros(array.shape, bool)
    mask[kept] = True
    return frame.xp.where(mask, array, 0 * array)


def _scatter(step: Step) -> Iterator[Edit]:
    yield Edit("overwritten", "add instead of set", _added_up)


ARRANGEMENT: dict[str, Callable[[Step], Iterator[Edit]]] = {
    **dict.fromkeys(("reduce_sum", "dot_general"), _reduction),
    **dict.fromkeys(("iota", "argmax", "argmin"), _index),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenation,
    "scatter": _scatter,
}
