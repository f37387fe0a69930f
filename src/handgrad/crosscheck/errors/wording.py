"""Numbers and places as a diagnosis words them."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import e, log, pi, sqrt

import numpy as np

FRACTIONS = {Fraction(1, 2): "half", Fraction(1, 3): "a third", Fraction(1, 4): "a quarter"}
ENDLESS = (3, 6, 7, 9, 11, 12)  # denominators of fractions whose decimals have no end
# Constants that a derivative may gain or lose, beside those made of sizes.
CONSTANTS = {"√2": sqrt(2), "√3": sqrt(3), "π": pi, "2π": 2 * pi, "√π": sqrt(pi), "√(2π)": sqrt(2 * pi), "e": e}
CONSTANTS |= {"ln 2": log(2), "ln 10": log(10), "√(2/π)": sqrt(2 / pi), "√(π/2)": sqrt(pi / 2), "2/√π": 2 / sqrt(pi)}


def shortest(x: float, slack: float, start: float = 0.0) -> str:
    """The decimal of the fewest digits within slack of x: 0.30000000000000004 is "0.3".

    Where x − start takes more than six digits, x is no round number, and four of them will do.
    """
    text = _within(x, slack)
    if _digits(float(text) - start) > 6:
        text = _within(x, max(slack, 5e-4 * abs(x - start)))
    return f"{float(text):.0f}" if "e+" in text and abs(x) < 1e7 else text


def _within(x: float, slack: float) -> str:
    return next((t for t in (f"{x:.{n}g}" for n in range(1, 17)) if abs(float(t) - x) <= slack), repr(x))


def _digits(x: float) -> int:
    return len(f"{abs(x):.10e}".split("e")[0].replace(".", "").rstrip("0"))


def factor(c: complex, slack: float, sizes: Mapping[str, int]) -> str:
    """What a gradient is that is c times the true one.

    Args:
      c: the factor; a number in the complex plane where the gradient is complex.
      slack: how exactly c is known; absolute.
      sizes: {"batch": 32, ...}: what c may be made of.
    Returns:
      "2 × too large", "sum instead of mean: factor 32 = batch", "sign flipped"; "" for 1.
    """
    if abs(c) <= slack:
        return "zero"
    if abs(c.imag) > slack:
        return "multiplied by " + _complex(c, slack)
    size = abs(c.real)
    # Where it is so near to 1 that slack would swallow it, its distance from 1 is what there is to say.
    slack = min(slack, abs(size - 1) / 4) if abs(size - 1) > 2 * slack else slack
    words = "" if abs(size - 1) <= slack else _size(size, slack, sizes)
    return " and ".join(filter(None, [words, "sign flipped" if c.real < 0 else ""]))


def _complex(c: complex, slack: float) -> str:
    size = abs(c.imag)
    imaginary = ("" if abs(size - 1) <= slack else shortest(size, slack)) + "i"
    minus = "−" if c.imag < 0 else ""
    if abs(c.real) <= slack:
        return minus + imaginary
    return f"{shortest(c.real, slack)} {minus or '+'} {imaginary}".replace("-", "−")


def _size(c: float, slack: float, sizes: Mapping[str, int]) -> str:
    near = [(words, exact) for words, exact in _made_of(sizes) if abs(c - exact) <= slack]
    plain = _plain(c, slack)
    for name, exact in near:
        n = exact if exact > 1 else 1 / exact
        if name.removeprefix("1/") in sizes and n > 2:
            others = [other for other, value in near if value == exact and other.removeprefix("1/") in sizes]
            roots = [other for other, value in near if "√" in other and abs(value - exact) <= 1e-12]
            if roots:  # the square root of a longer axis is as likely
                return f"{plain} (= {' or '.join([*others, *roots])})"
            if exact > 1:
                return f"sum instead of mean: factor {n:.0f} = {' or '.join(others)}"
            return f"mean instead of sum: factor 1/{n:.0f} = {' or '.join(others)}"
    exactly = 10 * slack < min(1e-3 * c, abs(c - 1))
    simple = plain.split(" ")[0] in ("half", "a") or len(plain.split(" ")[0]) < 3
    # A 2 or a half is most often no length, and others are coincidences unless c is known to several digits.
    names = [name for name, _ in near if exactly and not simple]
    if not names and exactly and not simple and "/" not in plain:
        constants = [*CONSTANTS.items(), *((f"1/{name}", 1 / x) for name, x in CONSTANTS.items() if "/" not in name)]
        names = [name for name, exact in constants if abs(c - exact) <= slack]
    return f"{plain} (= {' or '.join(names[:3])})" if names else plain


def _plain(c: float, slack: float) -> str:
    simple = Fraction(c).limit_denominator(12)
    if abs(float(simple) - c) <= slack and (slack < 1e-3 or simple in FRACTIONS):
        if c < 1 and (simple in FRACTIONS or simple.denominator in ENDLESS):
            return f"{FRACTIONS.get(simple, simple)} of what it should be"
        if simple.denominator in ENDLESS:
            return f"{simple} × too large"
    text = shortest(c, slack, 1.0 if abs(c - 1) < 0.01 else 0.0)
    return f"{text} × too large" if c > 1 else f"{text} of what it should be"


def _made_of(sizes: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    known = {name: n for name, n in sizes.items() if n > 1}
    for name, n in known.items():
        yield from ((name, float(n)), (f"1/{name}", 1 / n))
    for name, n in known.items():
        yield from ((f"√{name}", sqrt(n)), (f"1/√{name}", 1 / sqrt(n)))
        yield from ((f"{name}²", float(n) ** 2), (f"1/{name}²", 1 / n**2))
        if n > 2:
            yield from ((f"{name} / ({name} − 1)", n / (n - 1)), (f"({name} − 1) / {name}", (n - 1) / n))
    for one, n in known.items():
        for two, m in known.items():
            if one < two:
                yield from ((f"{one} × {two}", float(n * m)), (f"1/({one} × {two})", 1 / (n * m)))


def listing(numbers: Sequence[int]) -> str:
    """ "3", "1 and 4", "2 to 5", "1, 3 and 6"."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return series([str(number) for number in numbers])


def series(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def along(axis: int, ndim: int, batch: bool, numbers: Sequence[int]) -> str:
    """The indices of one axis: "example 3", "columns 0 and 2", "index 1 of axis 2"."""
    one, *end = singular(axis, ndim, batch).split(" ", 1)
    many = "indices" if one == "index" else one + "s"
    return " ".join([one if len(numbers) == 1 else many, listing(numbers), *end])


def singular(axis: int, ndim: int, batch: bool) -> str:
    """What one index of an axis stands for: "example", "row", "index of axis 2"."""
    if axis == 0 and batch:
        return "example"
    if ndim == 1:
        return "element"
    return ("row", "column")[axis] if ndim == 2 else f"index of axis {axis}"


def element(index: Sequence[int] | np.ndarray) -> str:
    """An element's place: "(1, 2)", and "3" in one dimension."""
    return str(int(index[0])) if len(index) == 1 else str(tuple(int(i) for i in index))
