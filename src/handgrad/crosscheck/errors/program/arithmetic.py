"""What arithmetic could do instead: terms, factors, powers, functions, choices and comparisons."""

from collections.abc import Callable, Iterator
from typing import Any

from handgrad.crosscheck.errors.gradient import is_gradient
from handgrad.crosscheck.errors.program.edit import Change, Edit, of_two
from handgrad.crosscheck.errors.program.lookalikes import FLIPPED, OTHER_OF_TWO
from handgrad.crosscheck.errors.program.program import Frame, Step


def _sum_of_terms(step: Step) -> Iterator[Edit]:
    sign = -1 if step.name == "sub" else 1
    yield of_two("dropped term", "the first term left out", lambda a, b: sign * b)
    yield of_two("dropped term", "the second term left out", lambda a, b: a)
    yield of_two("sign of a term", "the second term's sign flipped", lambda a, b: a - sign * b)
    if sign == -1:
        yield of_two("swapped operands", "the terms exchanged", lambda a, b: b - a)
    else:
        yield of_two("sign of a term", "the first term's sign flipped", lambda a, b: b - a)
        yield of_two("sum for a product", "a product instead of the sum", lambda a, b: a * b)


def _product(step: Step) -> Iterator[Edit]:
    yield of_two("dropped factor", "the first factor left out", lambda a, b: b)
    yield of_two("dropped factor", "the second factor left out", lambda a, b: a)
    yield of_two("sum for a product", "a sum instead of the product", lambda a, b: a + b)
    if is_gradient(step.avals_out[0]):
        yield of_two("product for a quotient", "a quotient instead of the product", lambda a, b: a / b)
        yield of_two("product for a quotient", "the inverse quotient instead of the product", lambda a, b: b / a)


def _quotient(step: Step) -> Iterator[Edit]:
    yield of_two("dropped factor", "the division left out", lambda a, b: a)
    yield of_two("dropped factor", "the numerator left out", lambda a, b: 1 / b)
    yield of_two("swapped operands", "the quotient upside down", lambda a, b: b / a)
    yield of_two("product for a quotient", "a product instead of the quotient", lambda a, b: a * b)


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
    yield of_two("flipped comparison", f"{words} instead", function)


def _clamp(step: Step) -> Iterator[Edit]:
    yield Edit("function left out", "clamp left out", lambda frame: [frame.inputs[1]])


ARITHMETIC: dict[str, Callable[[Step], Iterator[Edit]]] = {
    **dict.fromkeys(("add", "add_any", "sub"), _sum_of_terms),
    **dict.fromkeys(("max", "min", "and", "or"), _choice_of_two),
    **dict.fromkeys(("reduce_max", "reduce_min"), _extreme),
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), _comparison),
    **dict.fromkeys(("integer_pow", "pow"), _power),
    "mul": _product,
    "div": _quotient,
    "select_n": _selection,
    "cond": _branch,
    "clamp": _clamp,
}
