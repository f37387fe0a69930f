"""A rule's derivation with numbers, as a document."""

import unicodedata
from collections.abc import Iterator

import numpy as np

from handgrad.explain.derivation import Argument, Derivation
from handgrad.explain.document import (
    MORE_AXES,
    Document,
    Element,
    Formula,
    Heading,
    Matrices,
    Named,
    Paragraph,
    Table,
    Verbatim,
)
from handgrad.explain.equations import Equation, latex_name, signs, text_name
from handgrad.explain.matrix import number
from handgrad.explain.worked import Matrix


def derivation_document(derivation: Derivation) -> Document:
    """The four steps."""
    return list(_elements(derivation))


def _elements(derivation: Derivation) -> Iterator[Element]:
    name, options = derivation.name, derivation.options
    moving = [argument for argument in derivation.arguments if argument.cotangent is not None]
    yield Heading(f"The rule {name}: the four steps, in numbers", 1)
    yield Paragraph(
        f"handgrad.rules.{name} on small random arguments{f', with {options}' if options else ''}. "
        f"The derivation without numbers is {derivation.page}."
    )
    if said := signs([Equation("", line, "") for line in (*derivation.forward, *derivation.backward)]):
        yield Paragraph(said)
    if any(np.ndim(argument.value) > 2 for argument in derivation.arguments):
        yield Paragraph(MORE_AXES)
    yield Matrices(tuple(_named(argument.name, argument.value) for argument in derivation.arguments))
    yield from _pushforward(derivation, moving)
    yield from _inner_product(derivation)
    yield from _rearranged(derivation, moving)
    yield from _read_off(derivation, moving)


def _pushforward(derivation: Derivation, moving: list[Argument]) -> Iterator[Element]:
    outputs = derivation.outputs
    yield Heading("1. Pushforward")
    yield from map(Paragraph, derivation.forward)
    yield Matrices(tuple(_named(output.name, output.value) for output in outputs))
    off = max(_off(output.value, output.reference) for output in outputs)
    several = f"The rule has {len(outputs)} outputs. " if len(outputs) > 1 else ""
    same = f"differs from it by at most {number(off, 2)}" if off else "gives the same numbers"
    still = [text_name(argument.name) for argument in derivation.arguments if argument.cotangent is None]
    fixed = f" Not differentiable, and fixed: {', '.join(still)}." if still else ""
    yield Paragraph(
        f"{several}An independent formula {same}. Now perturb every argument along a random tangent; the output's "
        f"tangent is jax.jvp of that formula.{fixed}"
    )
    yield Matrices(
        tuple(_dotted(argument.name, argument.tangent) for argument in moving if argument.tangent is not None)
    )
    yield Matrices(tuple(_dotted(output.name, output.tangent) for output in outputs))
    if derivation.estimator:
        yield Paragraph(
            "This rule is an estimator: by design, its backward pass is not the derivative of its forward pass, but "
            "that of a surrogate. The tangent is the surrogate's, and a difference quotient of the output says "
            "something else."
        )
    else:
        off = max(_off(output.tangent, output.difference) for output in outputs)
        yield Paragraph(f"A difference quotient of the formula gives the same tangent up to {number(off, 2)}.")


def _inner_product(derivation: Derivation) -> Iterator[Element]:
    outputs = derivation.outputs
    pairing, latex = _pairings([output.name for output in outputs])
    yield Heading("2. Inner product")
    yield Paragraph(
        f"A loss behind the rule enters through its cotangent alone, an array of the output's shape. For a random one, "
        f"⟦{pairing}⟧ is the change of such a loss along the tangents:"
    )
    yield Matrices(tuple(_cotangent(output.name, output.cotangent) for output in outputs))
    yield Formula(*(f"{side} = {number(derivation.inner, 10)}" for side in (pairing, latex)))


def _rearranged(derivation: Derivation, moving: list[Argument]) -> Iterator[Element]:
    yield Heading("3. Rearrange")
    yield Paragraph(
        "The same number as a sum over the arguments, in which each tangent stands alone: what it is multiplied with "
        "is the argument's cotangent. With the cotangents of the rule's backward pass:"
    )
    left = _pairings([output.name for output in derivation.outputs])
    right = _pairings([argument.name for argument in moving])
    yield Formula(*(f"{a} = {b}" for a, b in zip(left, right, strict=True)))
    rows = [(f"⟨d{text_name(a.name)}, {dotted(a.name)}⟩", number(a.inner, 10)) for a in moving]
    total = sum(a.inner for a in moving)
    rows += [("their sum", number(total, 10)), ("step 2", number(derivation.inner, 10))]
    yield Table(("term", "value"), tuple(rows))


def _read_off(derivation: Derivation, moving: list[Argument]) -> Iterator[Element]:
    yield Heading("4. Read off")
    yield Verbatim(derivation.backward)
    rows = []
    for argument in moving:
        hand, autodiff = np.asarray(argument.cotangent), np.asarray(argument.autodiff)
        yield Matrices((_cotangent(argument.name, hand),))
        index = np.unravel_index(int(np.argmax(np.abs(hand))), hand.shape) if hand.size else ()
        entry = ", ".join(str(int(i) + 1) for i in index)
        values = (_short(hand[index]), _short(autodiff[index])) if hand.size else ("", "")
        rows.append((f"d{text_name(argument.name)}", entry, *values, number(_off(hand, autodiff), 2)))
    what = "its surrogate" if derivation.estimator else "the independent formula"
    yield Paragraph(
        f"The largest entry of each, at its row and column, beside jax.vjp of {what}; and the largest difference in "
        "all entries:"
    )
    yield Table(("cotangent", "entry", "by hand", "jax.vjp", "off by"), tuple(rows))


def dotted(name: str) -> str:
    """The name of a tangent: Ẋ."""
    name = text_name(name)
    letter, rest = name[:1], name[1:]
    if rest and not rest.startswith("_") and not rest.isdigit():
        return f"{name}˙"
    return unicodedata.normalize("NFC", f"{letter}\u0307") + rest


def _pairings(names: list[str]) -> tuple[str, str]:
    """⟨dX, Ẋ⟩ + ⟨dW, Ẇ⟩, in Unicode and in LaTeX."""
    text = " + ".join(f"⟨d{text_name(name)}, {dotted(name)}⟩" for name in names)
    latex = " + ".join(rf"\langle {_latex_cotangent(name)}, {_latex_tangent(name)} \rangle" for name in names)
    return text, latex


def _latex_cotangent(name: str) -> str:
    return f"d{_latex(name)}"


def _latex_tangent(name: str) -> str:
    letter, _, below = name.partition("_")
    if len(letter) == 1 and below:
        return rf"\dot{{{letter}}}_{{{below}}}"
    return rf"\dot{{{_latex(name)}}}"


def _latex(name: str) -> str:
    letter, _, below = name.partition("_")
    return f"{letter}_{{{below}}}" if len(letter) == 1 and below else latex_name(name)


def _named(name: str, value: Matrix) -> Named:
    return Named(text_name(name), _latex(name), value)


def _dotted(name: str, value: Matrix) -> Named:
    return Named(dotted(name), _latex_tangent(name), value)


def _cotangent(name: str, value: Matrix) -> Named:
    return Named(f"d{text_name(name)}", _latex_cotangent(name), value)


def _off(one: Matrix, other: Matrix) -> float:
    return float(np.max(np.abs(np.asarray(one) - np.asarray(other)), initial=0.0))


def _short(value: complex) -> str:
    return number(value.real if np.isrealobj(value) else value, 8)  # type: ignore[arg-type]
