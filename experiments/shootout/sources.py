"""Wrong backward passes as people write them: one change in the text of a function, its lines where they were."""

import ast
import importlib.util
import inspect
import itertools
import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """One change of a source file.

    Attributes:
      kind: what sort.
      line: which line changes, from 1.
      start, end: the offsets in the file's text that are replaced.
      text: by what.
    """

    kind: str
    line: int
    start: int
    end: int
    text: str


_FUNCTIONS = {"sum": "mean", "mean": "sum", "sin": "cos", "cos": "sin", "exp": "expm1", "tanh": "sin", "log1p": "log"}
_FUNCTIONS |= {"maximum": "minimum", "minimum": "maximum", "sqrt": "square", "rsqrt": "sqrt", "sigmoid": "tanh"}
_FUNCTIONS |= {"sign": "abs", "abs": "sign", "square": "sqrt", "cosh": "sinh", "sinh": "cosh", "max": "min"}
_TRANSPARENT = {"conj", "conjugate"}


def faults(text: str, function: str) -> Iterator[Fault]:
    """Every change of a function's body: operators, factors, terms, operands, reductions, functions, constants."""
    tree = ast.parse(text)
    starts = [0, *itertools.accumulate(len(line) for line in text.splitlines(keepends=True))]

    def at(line: int, column: int) -> int:
        whole = text[starts[line - 1] : starts[line]]
        return starts[line - 1] + len(whole.encode()[:column].decode())

    def span(node: Any) -> tuple[int, int]:
        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    def whole(node: Any) -> str:
        # An operand may stand in parentheses, which its own span leaves out.
        return f"({text[slice(*span(node))]})"

    inside = [node for one in _called(tree, function) for statement in _body(one) for node in _arithmetic(statement)]
    operands = {
        operand.id
        for node in inside
        if isinstance(node, ast.BinOp)
        for operand in (node.left, node.right)
        if isinstance(operand, ast.Name)
    }
    names = operands & {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    combined = {id(operand) for node in inside if isinstance(node, ast.BinOp) for operand in (node.left, node.right)}
    for node in inside:
        if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Tuple | ast.List):
            continue
        if isinstance(node, ast.BinOp):
            start, end = span(node)
            left, right = whole(node.left), whole(node.right)
            lines = node.lineno
            match node.op:
                case ast.Add():
                    changes = [("sign of a term", f"{left} - {right}"), ("dropped term", left), ("dropped term", right)]
                case ast.Sub():
                    changes = [("sign of a term", f"{left} + {right}"), ("dropped term", left)]
                    changes += [("swapped operands", f"{right} - {left}")]
                case ast.Mult():
                    changes = [("dropped factor", left), ("dropped factor", right)]
                    changes += [("quotient for a product", f"{left} / {right}")]
                case ast.Div():
                    changes = [("dropped factor", left), ("product for a quotient", f"{left} * {right}")]
                    changes += [("swapped operands", f"{right} / {left}")]
                case ast.MatMult():
                    changes = [("swapped operands", f"{right} @ {left}"), ("transposed operand", f"{left} @ {right}.T")]
                    changes += [("transposed operand", f"{left}.T @ {right}")]
                case ast.Pow():
                    changes = [("exponent", left), ("exponent", f"{left} ** ({right} + 1)")]
                case _:
                    changes = []
            yield from (Fault(kind, lines, start, end, f"({new})") for kind, new in changes)
            if isinstance(node.op, ast.Mult | ast.Div | ast.MatMult):
                yield Fault("factor", lines, start, end, f"(2 * ({text[start:end]}))")
                yield Fault("sign", lines, start, end, f"(-({text[start:end]}))")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not _is_axis(node, combined):
            yield Fault("sign", node.lineno, *span(node), whole(node.operand))
        elif isinstance(node, ast.Attribute):
            start, end = span(node)
            base = text[slice(*span(node.value))]
            if node.attr in ("T", "mT"):
                yield Fault("transposed operand", node.end_lineno or 0, start, end, base)
            elif node.attr in _FUNCTIONS and base in ("jnp", "jax.nn", "lax", "np"):
                yield Fault("another function", node.lineno, start, end, f"{base}.{_FUNCTIONS[node.attr]}")
        elif isinstance(node, ast.Call):
            yield from _of_call(node, span, text)
        elif isinstance(node, ast.Constant) and id(node) in combined:
            if isinstance(node.value, int | float) and not isinstance(node.value, bool):
                yield Fault("constant", node.lineno, *span(node), repr(2 * node.value))
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            flipped = {ast.Gt: "<", ast.Lt: ">", ast.GtE: "<", ast.LtE: ">"}.get(type(node.ops[0]))
            if flipped:
                new = f"{whole(node.left)} {flipped} {whole(node.comparators[0])}"
                yield Fault("flipped comparison", node.lineno, *span(node), f"({new})")
        elif isinstance(node, ast.Name) and id(node) in combined and node.id in names:
            for other in sorted(names - {node.id}):
                yield Fault("another operand", node.lineno, *span(node), other)


def _is_axis(node: ast.UnaryOp, combined: set[int]) -> bool:
    """Whether a negative number is an argument, as an axis is."""
    return isinstance(node.operand, ast.Constant) and id(node) not in combined


def _called(tree: ast.Module, function: str) -> list[ast.FunctionDef]:
    """A backward function, and what it calls in its file that the forward function doesn't."""
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}

    def reached(name: str) -> set[str]:
        found, new = set(), {name} & defined.keys()
        while new:
            found |= new
            inside = [node for one in new for node in ast.walk(defined[one]) if isinstance(node, ast.Name)]
            new = ({node.id for node in inside} & defined.keys()) - found
        return found

    forward = reached(function.replace("backward", "forward")) if "backward" in function else set()
    return [defined[name] for name in sorted(reached(function) - forward)]


_PLACES = {"range", "reshape", "expand_dims", "broadcast_to", "transpose", "swapaxes", "prod", "zip", "len", "tuple"}
_SIZES = {"ndim", "shape", "size", "dtype"}


def _arithmetic(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement that compute numbers: no axes, shapes, indices or loops over them."""
    if isinstance(node, ast.keyword | ast.ListComp | ast.GeneratorExp | ast.Slice | ast.Tuple):
        children = node.elts if isinstance(node, ast.Tuple) else []
        if any(isinstance(child, ast.Constant) for child in children):
            return
    elif isinstance(node, ast.Subscript):
        children = [node.value]
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        children = [node.func, *(node.args[:1] if name in _PLACES else node.args), *node.keywords]
    elif isinstance(node, ast.BinOp) and any(getattr(one, "attr", "") in _SIZES for one in ast.walk(node)):
        divided = isinstance(node.op, ast.Div)
        if not divided:
            return
        children = [node.left]
    else:
        children = list(ast.iter_child_nodes(node))
    if not isinstance(node, ast.keyword):
        yield node
    for child in children:
        yield from _arithmetic(child)


def _of_call(node: ast.Call, span: Callable[[Any], tuple[int, int]], text: str) -> Iterator[Fault]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name == "where" and len(node.args) == 3:
        a, b, c = (text[slice(*span(arg))] for arg in node.args)
        start, end = span(node.args[0])[0], span(node.args[2])[1]
        yield Fault("wrong branch", node.args[0].lineno, start, end, f"{a}, {c}, {b}")
    if name in _TRANSPARENT and node.args:
        yield Fault("conjugate", node.lineno, *span(node), f"({text[slice(*span(node.args[0]))]})")
    for axis in (
        *(k.value for k in node.keywords if k.arg == "axis"),
        *(node.args[1:2] if name in ("sum", "mean") else ()),
    ):
        source = text[slice(*span(axis))]
        if source in ("-1", "0", "1"):
            yield Fault("wrong axis", axis.lineno, *span(axis), {"-1": "0", "0": "-1", "1": "0"}[source])
    if name == "cumsum":
        yield Fault("function left out", node.lineno, *span(node), f"({text[slice(*span(node.args[0]))]})")


def _body(definition: ast.FunctionDef) -> list[ast.stmt]:
    """The statements; of the checks and the docstring there is nothing to get wrong."""
    found = []
    for statement in definition.body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        if value is None:
            found.append(statement)
    return found


def module_of(path: Path, name: str, text: str) -> Any:
    """A module made of this text, at this path, which is written for the tracebacks to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    linecache.checkcache(str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


def changed(text: str, fault: Fault) -> str:
    """The text with the change made."""
    return text[: fault.start] + fault.text + text[fault.end :]


def source_of(function: Any) -> tuple[str, str]:
    """(the text of the file that a function stands in, the function's name)."""
    while hasattr(function, "func"):
        function = function.func
    return Path(inspect.getsourcefile(function) or "").read_text(), function.__name__
