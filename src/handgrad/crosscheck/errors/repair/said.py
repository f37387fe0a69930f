"""A repair in words that hold when they are followed literally: which operand, of which call, for which leaf."""

import ast
import linecache
import re
from collections.abc import Iterator

from handgrad.crosscheck.errors.program.program import Step
from handgrad.crosscheck.errors.program.reading import assigned
from handgrad.crosscheck.errors.program.source import Line
from handgrad.crosscheck.errors.repair.candidate import Candidate
from handgrad.crosscheck.errors.repair.names import LONGEST, Names, returns_several, scope, subject
from handgrad.crosscheck.errors.repair.source import Source
from handgrad.crosscheck.errors.wording import series
from handgrad.crosscheck.report.report import Repair

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def reports(
    names: Names, changes: list[Candidate], leaves: list[set[int]], left: set[int], source: Source
) -> tuple[Repair, ...]:
    """The changes by file and line, each once.

    Args:
      leaves: that each change makes right.
      left: the leaves that are wrong all the same.
    """
    steps = {one.site: one for outer in names.program.steps for one in outer.all()}
    wrong = [names.gradient(leaf) for leaf in sorted(left)]
    after = f"; {series(wrong)} {'stay' if len(wrong) > 1 else 'stays'} wrong" if wrong else ""
    found = []
    for candidate, fixed in zip(changes, leaves, strict=True):
        step = steps[candidate.site]
        line = candidate.line or step.line
        end = names.program.steps[-1].line
        inside = line is not None and end is not None and scope(line) == scope(end)
        single = len(fixed) == 1 and line is not None and inside and returns_several(line)
        within = names.element(min(fixed), line) if single else ""
        words = _words(names, step, candidate, line, within)
        if not candidate.complete and single:
            words += f", in {names.gradient(min(fixed))}"
        words += _shared(source, candidate, step, line)
        if candidate.also:
            same = line.file if line is not None else ""
            others = ", ".join(str(one.line) if one.file == same else str(one) for one in candidate.also)
            words += f" (or on line{'s' * (len(candidate.also) > 1)} {others})"
        words += after
        where = (line.file, line.line, line.text) if line is not None else ("", 0, "")
        found.append(Repair(*where, words))
    return tuple(dict.fromkeys(found))


def _words(names: Names, step: Step, candidate: Candidate, line: Line | None, within: str) -> str:
    """What is done, and to which of several alike."""
    if candidate.complete:
        return candidate.words
    name = subject(names, step, candidate.slot, line)
    if step.name == "return" and line is not None and not re.fullmatch(r"\w+|`.*`.*", name or "it"):
        name = _returned(names, step, line) or name
    words = candidate.words.replace("{}", name) if name else candidate.alone.replace("{}", "it")
    if "{}" not in candidate.words:
        name = next((text for text in _OPERAND.findall(words)), "")
    return words + _which(step, line, name, within)


_OPERAND = re.compile(r"(?:sign of|factor|term|division by) (`[^`]+`|\w+)")


def _returned(names: Names, step: Step, line: Line) -> str:
    """What the backward function returns there, as it is written."""
    text = names.element(names.program.cotangents.index(step.outputs[0]), line)
    return text if text == "None" or text.isidentifier() else f"`{text}`" * (0 < len(text) <= LONGEST)


def _which(step: Step, line: Line | None, name: str, within: str) -> str:
    """ " in the second `1 - y`", where the line has several that the words may mean."""
    if line is None or step.line is None or line.line != step.line.line or step.name == "return":
        return ""
    text, expression = line.text, step.line.expression
    quoted = name.split(" (")[0].strip("`")
    try:
        node = ast.parse(expression.strip(), mode="eval").body
        tree = ast.parse(within or text)
    except (SyntaxError, ValueError):
        return ""
    if name:
        several = len(re.findall(rf"(?<![\w.]){re.escape(quoted)}(?!\w)", within or text)) > 1
    else:
        several = sum(_operation(other) == _operation(node) for other in ast.walk(tree)) > 1
    short = expression and len(expression) <= LONGEST and quoted != expression.strip()
    whole = text.partition("=")[2] if assigned(line) else text.removeprefix("return")
    whole = whole.strip().rstrip(",").strip("() ")
    if not several or (not short and quoted != expression.strip()) or whole == expression.strip("() "):
        return ""
    places = [at.start() for at in re.finditer(rf"(?<![\w.]){re.escape(expression)}", text)]
    if len(places) < 2:
        return "" if quoted == expression.strip() else f" in `{expression}`"
    lead = len(line_indent(step.line))
    at = places.index(step.line.start - lead) if step.line.start - lead in places else 0
    return f" in the {ORDINALS[min(at, 5)]} `{expression}`" if short else f", the {ORDINALS[min(at, 5)]} of them"


def line_indent(line: Line) -> str:
    """The white space before a line's text."""
    text = linecache.getline(line.file, line.line)
    return text[: len(text) - len(text.lstrip())]


def _operation(node: ast.AST) -> tuple[str, ...]:
    """What an expression does, as far as words tell."""
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return type(node).__name__, type(node.op).__name__
    return ("call", ast.unparse(node.func).rpartition(".")[2]) if isinstance(node, ast.Call) else ()


def _shared(source: Source, candidate: Candidate, step: Step, line: Line | None) -> str:
    """A warning, where the forward pass runs the line too."""
    if line is None or step.line is None or line.line != step.line.line or step.line not in source.shared:
        return ""
    calls = sorted(set(_calls(source, candidate)))
    if not calls:
        return ", where the backward pass runs it: the forward pass does too"
    s = "s" * (len(calls) > 1)
    return (
        f" for the call{s} on line{s} {series([str(n) for n in calls])} alone, as the forward pass runs this line too"
    )


def _calls(source: Source, candidate: Candidate) -> Iterator[int]:
    for site in (candidate.site, *candidate.repeated):
        stack = source.stacks[site]
        if len(stack) > 1:
            yield stack[1].line
