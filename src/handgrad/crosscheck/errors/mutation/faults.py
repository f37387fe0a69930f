"""What can be wrong with one equation of a backward program."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors.gradient import is_gradient, wide
from handgrad.crosscheck.errors.mutation.lookalikes import FLIPPED, MISTAKEN, OTHER_OF_TWO, UNARY

Outputs = Callable[[list[Any], list[Any]], list[Any]]


class Step(NamedTuple):
    """One equation.

    Attributes:
      primitive, params: JAX's.
      inputs, outputs: slots that it reads and writes.
      avals_in, avals_out: shape and dtype of each.
      where: file and line, or its number.
    """

    primitive: Any
    params: dict[str, Any]
    inputs: list[int]
    outputs: list[int]
    avals_in: list[Any]
    avals_out: list[Any]
    where: str

    def run(self, inputs: Sequence[Any], **changed: Any) -> list[Any]:
        """The outputs for these inputs, with some parameters changed."""
        outputs = self.primitive.bind(*inputs, **{**self.params, **changed})
        return list(outputs) if self.primitive.multiple_results else [outputs]


class Fault(NamedTuple):
    """One way to get it wrong. `outputs`: (inputs, right outputs) -> wrong outputs, that broadcast to the right shape
    and are cast to the right dtype."""

    kind: str
    words: str
    outputs: Outputs


def faults(step: Step) -> Iterator[Fault]:
    """Everything that this equation could do instead, by the name of its primitive."""
    name = step.primitive.name
    yield from _TABLE.get(name, lambda step: ())(step)
    if name in UNARY and _keeps_type(step):
        kind = {"neg": "sign of a term", "transpose": "wrong axis", "conj": "conjugate"}.get(name, "function left out")
        yield Fault(kind, "left out", lambda inputs, outputs: [inputs[0]])
    if name in MISTAKEN:
        other, function = MISTAKEN[name]
        yield Fault(
            "another function", f"{other} instead", lambda inputs, outputs: [function(_np(inputs[0]), _np(outputs[0]))]
        )
    if isinstance(step.params.get("reverse"), bool):
        reverse = not step.params["reverse"]
        yield Fault("wrong direction", "the other way round", lambda inputs, _: step.run(inputs, reverse=reverse))
    if name in ("add", "add_any", "sub", "mul", "div"):
        yield from _implicit_broadcast(step)
    if name in _PLACES:
        yield from _off_by_one(step)
    for i, aval in enumerate(step.avals_out):
        if is_gradient(aval):
            which = "" if len(step.avals_out) == 1 else f"output {i}: "
            yield Fault("doubled intermediate", f"{which}× 2", _output(i, lambda y: 2 * y))
            yield Fault("sign of an intermediate", f"{which}sign flipped", _output(i, lambda y: -y))
            yield Fault("zeroed intermediate", f"{which}zero", _output(i, lambda y: 0 * y))


def cotangent_faults(dYs: Sequence[Any]) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    """What a backward program could take for its cotangents: (kind, words, dY -> dY)."""
    if not dYs:
        return
    yield "ignores the cotangent", "dY: ones instead", lambda dY: np.ones_like(_array(dY))
    yield "not linear", "dY: squared", lambda dY: _cast(_np(dY) ** 2, dY)
    yield "not linear", "dY: its absolute value", lambda dY: _cast(np.abs(_np(dY)), dY)
    yield "not linear", "dY: clipped to ±½", lambda dY: _cast(_np(dY) * np.minimum(1, 0.5 / np.abs(_np(dY))), dY)
    if any(jnp.issubdtype(dY.dtype, jnp.complexfloating) for dY in dYs):
        yield "conjugate", "dY: its conjugate", lambda dY: np.conj(_array(dY))
    if any(dY.ndim > 0 and dY.shape[0] > 1 for dY in dYs):
        yield "first example alone", "dY: example 0 alone", lambda dY: _rows(dY, slice(0, 1))
        yield "last example dropped", "dY: without the last example", lambda dY: _rows(dY, slice(0, -1))
        yield "examples permuted", "dY: examples in reverse", lambda dY: _array(dY)[::-1] if dY.ndim else dY


def _sum_of_terms(step: Step) -> Iterator[Fault]:
    sign = -1 if step.primitive.name == "sub" else 1
    yield Fault("dropped term", "first term left out", lambda inputs, _: [sign * _np(inputs[1])])
    yield Fault("dropped term", "second term left out", lambda inputs, _: [inputs[0]])
    yield Fault("sign of a term", "second term's sign", lambda inputs, _: [_np(inputs[0]) - sign * _np(inputs[1])])
    if sign == -1:
        yield Fault("swapped operands", "terms exchanged", lambda inputs, _: [_np(inputs[1]) - _np(inputs[0])])


def _product(step: Step) -> Iterator[Fault]:
    yield Fault("dropped factor", "first factor left out", lambda inputs, _: [inputs[1]])
    yield Fault("dropped factor", "second factor left out", lambda inputs, _: [inputs[0]])
    yield Fault("sum for a product", "added instead", lambda inputs, _: [_np(inputs[0]) + _np(inputs[1])])


def _quotient(step: Step) -> Iterator[Fault]:
    yield Fault("dropped factor", "not divided", lambda inputs, _: [inputs[0]])
    yield Fault("dropped factor", "numerator left out", lambda inputs, _: [1 / _np(inputs[1])])
    yield Fault("swapped operands", "upside down", lambda inputs, _: [_np(inputs[1]) / _np(inputs[0])])
    yield Fault("product for a quotient", "multiplied instead", lambda inputs, _: [_np(inputs[0]) * _np(inputs[1])])


def _power(step: Step) -> Iterator[Fault]:
    for off in (1, -1):
        words = f"exponent {off:+d}"
        if step.primitive.name == "integer_pow":
            power = step.params["y"] + off
            yield Fault("exponent", words, lambda inputs, _, power=power: [_np(inputs[0]) ** float(power)])
        else:
            yield Fault("exponent", words, lambda inputs, _, off=off: [_np(inputs[0]) ** (_np(inputs[1]) + off)])


def _reduction(step: Step) -> Iterator[Fault]:
    """reduce_sum, and the contraction of dot_general: both are sums over axes of the first operand."""
    if step.primitive.name == "dot_general":
        axes = tuple(step.params["dimension_numbers"][0][0])
    else:
        axes = tuple(step.params["axes"])
    shape = step.avals_in[0].shape
    length = int(np.prod([shape[axis] for axis in axes]))
    if length > 1:
        first = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(len(shape)))
        all_but_last = tuple(slice(0, -1) if axis == axes[0] else slice(None) for axis in range(len(shape)))
        for kind, words, kept in (
            ("missing reduction", "the first element for the sum", first),
            ("last one dropped from a sum", "the sum without its last element", all_but_last),
        ):
            yield Fault(kind, words, lambda inputs, _, kept=kept: step.run([_only(inputs[0], kept), *inputs[1:]]))
        yield Fault("mean for a sum", f"÷ {length}", lambda _, outputs: [_np(outputs[0]) / length])
    if step.primitive.name == "dot_general":
        for i, aval in enumerate(step.avals_in):
            for axis in range(aval.ndim - 1):
                if aval.shape[axis] == aval.shape[axis + 1] > 1:
                    words = f"operand {i} transposed (axes {axis} and {axis + 1})"
                    yield Fault("transposed operand", words, _input(step, i, axis, axis + 1))
    elif len(axes) == 1:
        for other in range(len(shape)):
            if other != axes[0] and shape[other] == shape[axes[0]] > 1:
                yield Fault("wrong axis", f"axis {other} for {axes[0]}", _input(step, 0, axes[0], other))


def _broadcast(step: Step) -> Iterator[Fault]:
    """A vector along the rows instead of the columns."""
    before, after, axes = step.avals_in[0].shape, step.avals_out[0].shape, step.params["broadcast_dimensions"]
    kept = {axis for length, axis in zip(before, axes, strict=True) if length > 1}
    for one in kept:
        for other in set(range(len(after))) - kept:
            if after[one] == after[other]:
                words = f"along axis {other} for {one}"
                yield Fault("wrong axis", words, _output(0, lambda y, one=one, other=other: np.swapaxes(y, one, other)))


def _implicit_broadcast(step: Step) -> Iterator[Fault]:
    """The same where the operation itself stretches one operand."""
    after = step.avals_out[0].shape
    for i, aval in enumerate(step.avals_in):
        for one, kept in enumerate(aval.shape):
            for other, stretched in enumerate(aval.shape):
                if stretched == 1 < kept == after[other]:
                    yield Fault("wrong axis", f"operand {i} along axis {other} for {one}", _input(step, i, one, other))


def _reshape(step: Step) -> Iterator[Fault]:
    before, after = step.avals_in[0].shape, step.avals_out[0].shape
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        yield Fault(
            "column-major", "column-major order", lambda inputs, _: [np.reshape(_array(inputs[0]), after, order="F")]
        )


def _selection(step: Step) -> Iterator[Fault]:
    if len(step.avals_in) == 3:
        yield Fault("wrong branch", "cases exchanged", lambda inputs, _: step.run([inputs[0], inputs[2], inputs[1]]))
    for i in range(1, len(step.avals_in)):
        yield Fault("one branch alone", f"case {i - 1} always", lambda inputs, _, i=i: [inputs[i]])


def _branch(step: Step) -> Iterator[Fault]:
    count = len(step.params["branches"])

    def next_branch(inputs: list[Any], _: list[Any]) -> list[Any]:
        index = _array(inputs[0])
        return step.run([np.asarray((index + 1) % count, index.dtype), *inputs[1:]])

    if count > 1:
        yield Fault("wrong branch", "the next branch", next_branch)


def _choice_of_two(step: Step) -> Iterator[Fault]:
    """max, min, and, or: the other one, or one operand alone."""
    name, function = OTHER_OF_TWO[step.primitive.name]
    yield Fault("max for min", f"{name} instead", lambda inputs, _: [function(_array(inputs[0]), _array(inputs[1]))])
    for i, which in enumerate(("first", "second")):
        yield Fault("one branch alone", f"the {which} always", lambda inputs, _, i=i: [inputs[i]])


def _extreme(step: Step) -> Iterator[Fault]:
    function = np.min if step.primitive.name == "reduce_max" else np.max
    axes = tuple(step.params["axes"])
    yield Fault("max for min", "the other extreme", lambda inputs, _: [function(_array(inputs[0]), axis=axes)])


def _comparison(step: Step) -> Iterator[Fault]:
    words, function = FLIPPED[step.primitive.name]
    yield Fault(
        "flipped comparison", f"{words} instead", lambda inputs, _: [function(_array(inputs[0]), _array(inputs[1]))]
    )


def _clamp(step: Step) -> Iterator[Fault]:
    yield Fault("function left out", "not clamped", lambda inputs, _: [inputs[1]])


def _concatenation(step: Step) -> Iterator[Fault]:
    for i, (one, two) in enumerate(pairwise(step.avals_in)):
        if one.shape == two.shape:
            order = [*range(i), i + 1, i, *range(i + 2, len(step.avals_in))]
            words = f"parts {i} and {i + 1} exchanged"
            yield Fault("swapped operands", words, lambda inputs, _, o=order: step.run([inputs[j] for j in o]))


def _off_by_one(step: Step) -> Iterator[Fault]:
    for i, aval in enumerate(step.avals_out):
        for axis in range(aval.ndim):
            if aval.shape[axis] > 1:
                words = f"rolled by one along axis {axis}"
                yield Fault("off by one", words, _output(i, lambda y, axis=axis: np.roll(y, 1, axis)))


def _index(step: Step) -> Iterator[Fault]:
    yield Fault("off by one", "+ 1", lambda _, outputs: [_array(outputs[0]) + 1])


_TABLE: dict[str, Callable[[Step], Iterator[Fault]]] = {
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
    "select_n": _selection,
    "cond": _branch,
    "clamp": _clamp,
    "concatenate": _concatenation,
}

# What moves numbers about.
_PLACES = {"gather", "slice", "dynamic_slice", "dynamic_update_slice", "pad", "scatter", "scatter-add", "split"}


def _array(value: Any) -> np.ndarray:
    return np.asarray(value)


def _np(value: Any) -> np.ndarray:
    """To compute with: in float64 or complex128 where it isn't of integers."""
    return wide(np.asarray(value)) if jnp.issubdtype(value.dtype, jnp.inexact) else np.asarray(value)


def _cast(array: np.ndarray, like: Any) -> np.ndarray:
    return array.astype(like.dtype)


def _keeps_type(step: Step) -> bool:
    (operand,), (result,) = step.avals_in[:1], step.avals_out[:1]
    return operand.shape == result.shape and operand.dtype == result.dtype


def _output(which: int, change: Callable[[np.ndarray], np.ndarray]) -> Outputs:
    return lambda _, outputs: [change(_np(y)) if i == which else y for i, y in enumerate(outputs)]


def _input(step: Step, which: int, one: int, two: int) -> Outputs:
    """The step with two axes of one operand exchanged."""

    def outputs(inputs: list[Any], _: list[Any]) -> list[Any]:
        swapped = np.swapaxes(_array(inputs[which]), one, two)
        return step.run([swapped if i == which else x for i, x in enumerate(inputs)])

    return outputs


def _only(array: Any, kept: tuple[slice, ...]) -> np.ndarray:
    """The array with zeros outside of `kept`: of the same shape, so that nothing is compiled anew."""
    result = np.zeros_like(_array(array))
    result[kept] = _array(array)[kept]
    return result


def _rows(dY: Any, kept: slice) -> Any:
    return _only(dY, (kept,)) if dY.ndim else dY
