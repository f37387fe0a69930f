"""What to call the values of a program: by the user's own names and expressions."""

import ast
import re

import numpy as np

from handgrad.crosscheck.errors.program.expressions import PASSING, Expression, expressions
from handgrad.crosscheck.errors.program.program import Program, Step
from handgrad.crosscheck.errors.program.reading import assigned, element, enclosing, mentioned, operand_nodes
from handgrad.crosscheck.errors.program.source import Line

NOUNS = {"mul": "product", "add": "sum", "add_any": "sum", "sub": "difference", "div": "quotient"}
NOUNS |= {"dot_general": "matrix product", "reduce_sum": "sum", "transpose": "transpose", "select_n": "choice"}
LONGEST = 40  # characters of an expression that is quoted
_SIMPLE = re.compile(r"[\w.]+|\S+\(.*\)")
Scope = tuple[str, str, int]


class Names:
    """{slot: its name} of a program.

    Attributes:
      arguments: the names of the leaves, then of the cotangents.
      wanted: those of the leaves that are differentiated.
      rank: 0 for an argument, then what has a name, then the rest.
      local: {slot: {the function that a line is in: what it calls this value}}.
      texts: {slot: (the expression that makes it, its line)}.
    """

    def __init__(
        self, program: Program, leaves: list[str], outputs: list[str], wanted: list[str], positions: list[int]
    ):
        dYs = ["dY"] if len(outputs) == 1 else [f"d{name}" for name in outputs]
        self.arguments = [*leaves, *dYs]
        self.wanted, self.program = wanted, program
        self.positions = positions if len(program.nothing) == len(leaves) else [*range(len(wanted))]
        self.of: dict[int, str] = dict(zip([*program.leaves, *program.dYs], self.arguments, strict=True))
        self.rank: dict[int, float] = dict.fromkeys(self.of, 0)
        self.local: dict[int, dict[Scope, str]] = {}
        self.texts: dict[int, tuple[str, Line]] = {}
        for slot, value in program.constants.items():
            # A random key has a dtype of JAX's own.
            if np.ndim(value) == 0 and isinstance(value.dtype, np.dtype) and value.dtype.kind in "fiu":
                self.of[slot] = f"{np.asarray(value).item():.6g}"
        steps = [one for step in program.steps for one in step.all()]
        found = list(expressions(program))
        last = {(step.line.file, step.line.line): step for step in steps if step.line and step.name != "return"}
        for expression in found:
            for step in expression.steps:
                self._made(expression, step, last)
        for step in steps:
            if step.body is not None:
                carried = step.body.arguments[step.body.constants :][: step.body.carried]
                self.of.update(dict.fromkeys(carried, "the loop's carry"))
        for expression in found:
            self._read(expression)

    def _made(self, expression: Expression, step: Step, last: dict[tuple[str, int], Step]) -> None:
        """Names what a step makes."""
        if step.line is None or len(step.outputs) != 1:
            return
        (slot,), text = step.outputs, step.line.expression
        name = assigned(step.line) if last.get((step.line.file, step.line.line)) is step else ""
        root = expression.roots(step)[0] if step.inputs else slot
        if name:
            self.of[slot], self.rank[slot] = name, 1
            self.local.setdefault(slot, {})[scope(step.line)] = name
            value = step.line.text.partition("=")[2].strip()
            if len(value) <= LONGEST:
                self.texts[slot] = value, step.line
        elif step is not expression.value and step.name in PASSING and root in self.of:
            self.of[slot], self.rank[slot] = self.of[root], self.rank.get(root, 3)
            self.local[slot] = self.local.setdefault(root, {})
            if root in self.texts:
                self.texts[slot] = self.texts[root]
        elif text and len(text) <= LONGEST and step is expression.value:
            self.of[slot], self.rank[slot] = f"`{text}`", 2
            self.texts[slot] = text, step.line
        else:
            where = f"in `{text}`" if text and len(text) <= LONGEST else f"on line {step.line.line}"
            self.of[slot] = f"the {NOUNS.get(step.name, 'value')} {where}"

    def _read(self, expression: Expression) -> None:
        """What the backward pass itself calls its residuals."""
        own = {slot for step in expression.steps for slot in step.outputs}
        for step in expression.steps:
            if step.line is None:
                continue
            for slot, node in zip(expression.roots(step), operand_nodes(step.line, step.name), strict=False):
                name = node.id if isinstance(node, ast.Name) else ""
                if slot in own or not (name or _is_part(node)):
                    continue
                self.local.setdefault(slot, {}).setdefault(scope(step.line), ast.unparse(node))
                if not name:
                    continue
                cotangent = slot in self.program.dYs and self.rank[slot] == 0
                if cotangent or self.rank.get(slot, 3) > 1:
                    self.of[slot], self.rank[slot] = name, 0.5 if cotangent else 1

    def __getitem__(self, slot: int) -> str:
        return self.of.get(slot, "an intermediate")

    def at(self, slot: int, line: Line | None) -> str:
        """The name by which a line can read the value: its own, else the expression that makes it elsewhere."""
        name = self[slot]
        if line is None:
            return name
        here = scope(line)
        called = self.local.get(slot, {})
        if here in called:
            return called[here]
        # The function's own name for another value would mislead.
        taken = any(names.get(here) == name for names in self.local.values())
        if slot in (*self.program.leaves, *self.program.dYs):
            return f"the argument {name}" if taken else name
        if not taken and name in mentioned(line):
            return name
        text, made = self.texts.get(slot, ("", line))
        around = enclosing(line)
        seen = [name for (file, function, _), name in called.items() if file == line.file and function in around]
        if seen or (scope(made) == here and text):
            return seen[0] if seen else name
        if not text:
            return next((f"{own} of {function}" for (_, function, _), own in called.items() if own == name), name)
        known = set(re.findall(r"(?<![\w.])[^\W\d]\w*", text)) <= mentioned(line)
        return f"`{text}`" if known else f"`{text}` (line {made.line})"

    def inside(self, slot: int, line: Line | None = None) -> str:
        """The name as part of a formula."""
        name = re.sub(r" \(line \d+\)$", "", self.at(slot, line)).removeprefix("the argument ").strip("`")
        return name if _SIMPLE.fullmatch(name) else f"({name})"

    def gradient(self, leaf: int) -> str:
        """What to call a leaf's cotangent."""
        name = self.wanted[leaf]
        return f"d{name}" if name.isidentifier() else f"the gradient of {name}"

    def element(self, leaf: int, line: Line | None) -> str:
        """What a line returns as a leaf's cotangent, as it is written; "" where it doesn't say."""
        position = self.positions[leaf]
        if line is None:
            return ""
        text = element(line, position, len(self.program.nothing))
        nothing = position < len(self.program.nothing) and self.program.nothing[position]
        return text or ("None" if nothing else "")


def _is_part(node: ast.expr) -> bool:
    """Whether it is a field or an element of what has a name, as `r[0]`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and isinstance(node.value, ast.Name)
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def scope(line: Line) -> Scope:
    """The function that a line is in."""
    return line.file, line.function, line.line if line.function == "<lambda>" else 0


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


def subject(names: Names, step: Step, slot: int, line: Line | None) -> str:
    """The value that an edit changes, quoted, where the line has more than that on it."""
    if step.line is None or line is None:
        return names[slot]
    name = names.at(slot, line)
    if slot in names.program.constants:
        name = _folded(step, slot, names[slot])
    whole = line.text.removeprefix("return").strip().rstrip(",").strip("() ")
    return "" if name == assigned(line) or name.strip("`") == whole else name


def _folded(step: Step, slot: int, value: str) -> str:
    """A constant as the source has it: "`labels.shape[0]` (7)"."""
    nodes = operand_nodes(step.line, step.name) if step.line is not None else ()
    places = [i for i, other in enumerate(step.inputs) if other == slot]
    if len(nodes) != len(step.inputs) or not places:
        return value
    text = ast.unparse(nodes[places[0]])
    return value if text == value or len(text) > LONGEST else text if text.isidentifier() else f"`{text}` ({value})"
