"""What a diagnosis must say of a gross mutant, by its kind."""

import re
from collections.abc import Callable

from handgrad.crosscheck.errors.mutation import Mutant

Expected = Callable[[str], str]

# Kinds with one diagnosis that every report must make.
SIGNATURES: dict[str, Expected] = {
    "scale": lambda words: _factor(float(words.removeprefix("× "))),
    "sign": lambda words: "sign flipped",
    "dropped leaf": lambda words: "zero",
    "batch factor": lambda words: _batch(words),
    "transposed": lambda words: "transposed|axes in the order",
    "examples permuted": lambda words: "examples permuted|examples: ",
    "missing broadcast reduction": lambda words: "misses the sum over",
    "wrong branch": lambda words: rf"where {re.escape(words.split('where ')[1])}",
    "conjugate": lambda words: "conjugate missing",
    "dtype": lambda words: re.escape(words),
}

# Further kinds with an unmistakable signature.
FURTHER: dict[str, Expected] = {
    "rounded": lambda words: words,
    "NaN": lambda words: "NaN in 1 of|NaN",
    "infinity": lambda words: "infin",
    "one element": lambda words: "element",
    "two elements exchanged": lambda words: "exchanged",
    "one row": lambda words: "row|example|index",
    "one column": lambda words: "column|element|index",
    "off by one": lambda words: "rolled by|exchanged|reversed",
    "reversed": lambda words: "reversed|exchanged",
    "elements reversed": lambda words: "reversed|exchanged",
    "absolute value": lambda words: "absolute value",
    "negative part dropped": lambda words: "zero where it should be negative",
    "positive part dropped": lambda words: "zero where it should be positive",
    "clipped": lambda words: "clipped",
    "constant offset": lambda words: "off by a constant",
    "diagonal alone": lambda words: "diagonal",
    "upper triangle alone": lambda words: "triang|diagonal",
    "first example alone": lambda words: "example",
    "last example dropped": lambda words: "example|row|element",
    "first example for all": lambda words: "first along axis 0|example 0",
    "another leaf's": lambda words: words,
    "squared": lambda words: "squared",
    "times the argument": lambda words: "multiplied by its own argument",
    "mean removed": lambda words: "without its mean",
    "accumulated": lambda words: "cumulatively",
    "sign alone": lambda words: "its sign instead of itself",
}


def expected(mutant: Mutant) -> str:
    """The regular expression that its diagnosis matches; "" for a kind that has no look of its own."""
    say = {**FURTHER, **SIGNATURES}.get(mutant.kind)
    return say(mutant.description.split(": ", 1)[1]) if say and mutant.leaf else ""


def _factor(factor: float) -> str:
    words = {0.5: "half", 0.1: r"0\.1 of what|factor 1/10"}
    size = abs(factor)
    said = words.get(size) or rf"{re.escape(f'{size:g}')} × too large|factor {size:g} ="
    return f"({said}).*sign flipped" if factor < 0 else said


def _batch(words: str) -> str:
    n = words.split(" ")[-1]
    if n == "2":
        return "2 × too large|half"
    return f"factor {n} = .*batch" if words.startswith("sum") else f"factor 1/{n} = .*batch"
