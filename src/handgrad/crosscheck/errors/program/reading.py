"""What a line of the user's source says: the names that it gives, reads, calls with and returns."""

import ast
import functools
import linecache
import re

from handgrad.crosscheck.errors.program.source import Line


def assigned(line: Line) -> str:
    """The name that a line assigns, as "s" of `s = jnp.sum(P)`; "" where it assigns several, and in a lambda."""
    if line.function == "<lambda>":
        return ""
    try:
        (statement,) = ast.parse(line.text).body
    except (SyntaxError, ValueError):
        return ""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return ""
    return target.id if isinstance(target, ast.Name) else ""


def assignments(line: Line, name: str) -> set[int]:
    """The last line of the function before one that assigns a name; empty where none does, or it is no name."""
    if name.isidentifier():
        for number in range(line.line - 1, 0, -1):
            text = linecache.getline(line.file, number)
            if re.match(rf"\s*(\w+, )*{name}(, \w+)* =[^=]", text):
                return {number}
            if re.match(r"\s*(def|class) ", text):
                break
    return set()


_OPERATORS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.MatMult: "dot_general",
    ast.Pow: "pow",
}


@functools.lru_cache(maxsize=4096)
def operand_nodes(line: Line, primitive: str) -> tuple[ast.expr, ...]:
    """The operands of an expression that is this one operation, or a call of one argument; else none."""
    try:
        expression = ast.parse(line.expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return ()
    if isinstance(expression, ast.BinOp) and _OPERATORS.get(type(expression.op)) == primitive:
        return expression.left, expression.right
    if isinstance(expression, ast.Call) and len(expression.args) == 1:
        return (expression.args[0],)
    return (expression.operand,) if isinstance(expression, ast.UnaryOp) else ()


def operands(line: Line, primitive: str) -> tuple[str, ...]:
    """The names of the operands of an expression, as ("dY", "W") of `dY @ W`; "" for an operand that is no name."""
    return tuple(node.id if isinstance(node, ast.Name) else "" for node in operand_nodes(line, primitive))


def renamed(line: Line) -> str:
    """ "b" of a line that only gives it another name, as `a = b`; else ""."""
    found = re.fullmatch(r"\w+ = [(]*([\w.]+)[)]*", line.text)
    return found[1] if found else ""


def returned(line: Line, position: int) -> str:
    """The name that a line returns at a position; "" where that is no name."""
    text = element(line, position)
    return text if text.isidentifier() and text != "None" else ""


def element(line: Line, position: int, count: int = 0) -> str:
    """What a line, or the one lambda on it, returns at a position; "" where it doesn't say, or not as many values."""
    try:
        (statement,) = ast.parse(line.text).body
    except (SyntaxError, ValueError):
        return ""
    lambdas = [node.body for node in ast.walk(statement) if isinstance(node, ast.Lambda)]
    values = [statement.value] if isinstance(statement, ast.Return) else lambdas
    several = [value.elts if isinstance(value, ast.Tuple) else [value] for value in values]
    fitting = [nodes for nodes in several if position < len(nodes) and count in (0, len(nodes))]
    node = fitting[0][position] if len(fitting) == 1 else None
    return (ast.get_source_segment(line.text, node) or "") if node is not None else ""


def parameters(line: Line) -> list[str]:
    """The parameters of the function that a line is in, in order; none where its first line doesn't have them all."""
    for number in range(line.line, 0, -1):
        text = linecache.getline(line.file, number).strip()
        if text.startswith(f"def {line.function}("):
            try:
                (function,) = ast.parse(text + ("" if not text.endswith(":") else " pass")).body
            except (SyntaxError, ValueError):
                return []
            return [one.arg for one in (*function.args.posonlyargs, *function.args.args)]  # pyright: ignore
    return []


@functools.lru_cache(maxsize=4096)
def mentioned(line: Line) -> frozenset[str]:
    """The names in the function that a line is in, from its first line to this one."""
    found: set[str] = set()
    for number in range(line.line, 0, -1):
        text = linecache.getline(line.file, number)
        found.update(re.findall(r"(?<![\w.])[^\W\d]\w*", text))
        if line.function == "<lambda>" or text.strip().startswith(f"def {line.function}("):
            break
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def enclosing(line: Line) -> frozenset[str]:
    """The names of the functions that a line is inside of, by indentation."""
    found, text = [], linecache.getline(line.file, line.line)
    inside = len(text) - len(text.lstrip())
    for number in range(line.line - 1, 0, -1):
        text = linecache.getline(line.file, number)
        indentation = len(text) - len(text.lstrip())
        if text.strip() and indentation < inside:
            head = re.match(r"\s*(?:def|class) (\w+)", text)
            found += [head[1]] if head else []
            inside = indentation
    return frozenset(found)


def call_of(line: Line, function: str) -> list[str]:
    """The positional arguments of the call of a function that an expression is; none where it is no such call."""
    try:
        node = ast.parse(line.expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return []
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == function and not node.keywords:
        return [ast.unparse(one) for one in node.args]
    return []


def unpacking(line: Line, names: set[str]) -> Line | None:
    """The last line of the function before one that assigns several names, all of these among them."""
    for number in range(line.line, 0, -1):
        text = linecache.getline(line.file, number).strip()
        found = re.match(r"\(?([\w\s,]+?)\)?\s*=[^=]", text)
        if found and "," in found[1] and names <= {name.strip() for name in found[1].split(",")}:
            return line._replace(line=number, start=-1, end=-1)
        if text.startswith(("def ", "class ")):
            break
    return None


def arguments(line: Line) -> set[str]:
    """The names that the calls on a line are given."""
    try:
        tree = ast.parse(line.expression.strip() or line.text)
    except (SyntaxError, ValueError):
        return set()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {node.id for call in calls for node in call.args if isinstance(node, ast.Name)}
