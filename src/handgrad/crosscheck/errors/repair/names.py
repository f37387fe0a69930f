"""What to call the values of a program: by the user's own names and expressions."""

import re
from typing import Any

import numpy as np

from handgrad.crosscheck.errors.program.program import Program, Step
from handgrad.crosscheck.errors.program.source import Line, assigned, operands

NOUNS = {"mul": "product", "add": "sum", "add_any": "sum", "sub": "difference", "div": "quotient"}
NOUNS |= {"dot_general": "matrix product", "reduce_sum": "sum", "transpose": "transpose", "select_n": "choice"}
LONGEST = 40  # characters of an expression that is quoted
_SIMPLE = re.compile(r"[\w.]+|\S+\(.*\)")


class Names:
    """{slot: its name} of a program.

    Attributes:
      arguments: the names of the leaves, then of the cotangents.
    """

    def __init__(self, program: Program, leaves: list[str], outputs: list[str], wanted: list[str]):
        dYs = ["dY"] if len(outputs) == 1 else [f"d{name}" for name in outputs]
        self.arguments = [*leaves, *dYs]
        self.wanted = wanted
        self.of: dict[int, str] = dict(zip([*program.leaves, *program.dYs], self.arguments, strict=True))
        self.rank: dict[int, float] = dict.fromkeys(self.of, 0)  # arguments first, then what has a name, then the rest
        for slot, value in program.constants.items():
            # A random key has a dtype of JAX's own.
            if np.ndim(value) == 0 and isinstance(value.dtype, np.dtype) and value.dtype.kind in "fiu":
                self.of[slot] = f"{np.asarray(value).item():.6g}"
        steps = [one for step in program.steps for one in step.all()]
        last = {(step.line.file, step.line.line): step for step in steps if step.line and step.name != "return"}
        for step in steps:
            if step.line is not None and len(step.outputs) == 1:
                (slot,) = step.outputs
                name = assigned(step.line) if last.get((step.line.file, step.line.line)) is step else ""
                text = step.line.expression
                if name:
                    self.of[slot], self.rank[slot] = name, 1
                elif text and len(text) <= LONGEST:
                    self.of[slot], self.rank[slot] = f"`{text}`", 2
                else:
                    self.of[slot] = f"the {NOUNS.get(step.name, 'value')} on line {step.line.line}"
        for step in steps:
            if step.body is not None:
                carried = step.body.arguments[step.body.constants :][: step.body.carried]
                self.of.update(dict.fromkeys(carried, "the loop's carry"))
        # What the backward pass itself calls its residuals.
        for step in steps:
            if step.line is not None:
                for slot, name in zip(step.inputs, operands(step.line, step.name), strict=False):
                    cotangent = slot in program.dYs and self.rank[slot] == 0
                    if name and (cotangent or self.rank.get(slot, 3) > 1):
                        self.of[slot], self.rank[slot] = name, 0.5 if cotangent else 1

    def __getitem__(self, slot: int) -> str:
        return self.of.get(slot, "an intermediate")

    def inside(self, slot: int) -> str:
        """The name as part of a formula."""
        name = self[slot].strip("`")
        return name if _SIMPLE.fullmatch(name) else f"({name})"

    def gradient(self, leaf: int) -> str:
        """What to call a leaf's cotangent."""
        name = self.wanted[leaf]
        return f"d{name}" if name.isidentifier() else f"the gradient of {name}"


def returns_several(line: Line) -> bool:
    """Whether a line returns more than one value."""
    text = line.text
    return text.startswith("return") and _commas(text) > 0


def _commas(text: str) -> int:
    """Commas outside of parentheses."""
    depth = found = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        found += character == "," and depth == 0
    return found


def subject(names: Names, step: Step, slot: int) -> str:
    """The value that an edit changes, quoted, where the line has more than that on it."""
    line = step.line
    if line is None:
        return names[slot]
    text = line.text
    name = names[slot]
    whole = text.removeprefix("return").strip().rstrip(",").strip("() ")
    return "" if name == assigned(line) or name.strip("`") == whole else name


def shape(value: Any) -> str:
    """ "an operand of shape (5, 7)"."""
    return f"the operand of shape {tuple(np.shape(value))}"
