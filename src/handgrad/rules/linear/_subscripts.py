"""Reading the subscripts of an einsum of two operands: one letter for each axis, and what doesn't fit."""

import re
import string

import jax
from jaxtyping import Array

from handgrad.checks import InputError, describe

Operand = Array | jax.ShapeDtypeStruct


def read(where: str, subscripts: str, **operands: Operand) -> list[str]:
    """The letters of both operands and of the output, one for each axis, the axes of "..." among them.

    Axes of "..." broadcast, aligned from the right. One of size 1 beside a longer one gets a separate letter: it is
    summed over in that operand alone, so that its cotangent is the sum along the longer one.
    """
    *terms, y = _terms(where, subscripts)
    hidden = [_hidden(where, term, name, array) for term, (name, array) in zip(terms, operands.items(), strict=True)]
    n = max(len(sizes) for sizes in hidden)
    fresh = iter(letter for letter in string.ascii_letters if letter not in subscripts)
    shared = [next(fresh) for _ in range(n)]
    one, two = [(None,) * (n - len(sizes)) + sizes for sizes in hidden]
    for i, sides in enumerate((zip(one, two, shared, strict=True), zip(two, one, shared, strict=True))):
        letters = [
            "" if size is None else next(fresh) if size == 1 and other not in (None, 1) else letter
            for size, other, letter in sides
        ]
        terms[i] = terms[i].replace("...", "".join(letters))
    sizes: dict[str, int] = {}
    for term, (name, array) in zip(terms, operands.items(), strict=True):
        for axis, letter in enumerate(term):
            if sizes.setdefault(letter, array.shape[axis]) != array.shape[axis]:
                wanted = f"{name} must have {sizes[letter]} along axis {axis} for {subscripts!r}"
                raise InputError(f"{where}: {wanted}, got {describe(array)}")
    return [*terms, y.replace("...", "".join(shared))]


def shape_of(y: str, a: str, A: Operand, b: str, B: Operand) -> tuple[int, ...]:
    """The output's shape."""
    sizes = dict(zip(a + b, (*A.shape, *B.shape), strict=True))
    return tuple(sizes[letter] for letter in y)


def _terms(where: str, subscripts: str) -> list[str]:
    """The operands' terms and the output's, which is derived where it is implicit."""
    if not isinstance(subscripts, str):
        raise InputError(f"{where}: subscripts must be a string, as 'ij,jk->ik', got {describe(subscripts)}")
    inputs, arrow, y = subscripts.replace(" ", "").partition("->")
    if not arrow:
        letters = re.sub("[.,]", "", inputs)
        y = "..." * ("..." in inputs) + "".join(sorted(letter for letter in letters if letters.count(letter) == 1))
    terms = [*inputs.split(","), y]
    wanted = None
    if len(terms) != 3:
        wanted = "name two operands, as 'ij,jk->ik'"
    elif not all(re.fullmatch(r"[a-zA-Z]*(\.\.\.[a-zA-Z]*)?", term) for term in terms):
        wanted = "be of letters and at most one '...' for each operand"
    elif len(set(y.replace("...", ""))) != len(y.replace("...", "")):
        wanted = "give the output each letter once"
    elif not set(y) <= set(inputs) or ("..." in inputs and "..." not in y):
        wanted = "give the output letters of the operands, and '...' where they have it"
    if wanted:
        raise InputError(f"{where}: subscripts must {wanted}, got {subscripts!r}")
    return terms


def _hidden(where: str, term: str, name: str, array: Operand) -> tuple[int, ...]:
    """The sizes of the axes that "..." stands for in this operand."""
    letters = len(term.replace("...", ""))
    if array.ndim < letters or (array.ndim > letters and "..." not in term):
        least = "at least " if "..." in term else ""
        raise InputError(f"{where}: {name} must have {least}{letters} axes for {term!r}, got {describe(array)}")
    start = term.find("...")
    return tuple(array.shape[start : start + array.ndim - letters]) if "..." in term else ()
