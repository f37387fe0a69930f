"""Functions and classes of the package as their files write them, found by name and shown without their docstrings."""

import ast
import inspect
import itertools
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = "https://github.com/handgrad/handgrad/blob/main"


class Shown(NamedTuple):
    """A piece of a file. line: its first line; text: its lines without the docstring."""

    line: int
    text: str


def path_of(module: str) -> Path:
    """The file of a module of the package, or of the pytest plugin beside it."""
    stem = REPOSITORY / "src" / Path(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            return path
    raise LookupError(f"there is no module {module}")


def url(path: Path, line: int | None = None) -> str:
    """Where the code host shows the file."""
    return f"{HOST}/{path.relative_to(REPOSITORY).as_posix()}" + (f"#L{line}" if line else "")


def shown(module: str, names: list[str]) -> list[Shown]:
    """These functions, classes, methods ("Class.method") or assignments of the module, in the order of the names."""
    text, found = path_of(module).read_text(), definitions(module)
    unknown = [name for name in names if name not in found]
    if unknown or not names:
        raise LookupError(f"{module} does not define {', '.join(unknown) or 'anything: no name is given'}")
    return [_without_docstring(found[name], text.splitlines()) for name in names]


def definitions(module: str) -> dict[str, ast.stmt]:
    """What the file of the module defines, by name; methods as "Class.method"."""
    return _definitions(ast.parse(path_of(module).read_text()).body)


def text_below(module: str, name: str) -> str:
    """The string that stands below an assignment and documents it; "" where there is none."""
    body = ast.parse(path_of(module).read_text()).body
    for node, following in itertools.pairwise(body):
        if name in _definitions([node]) and isinstance(following, ast.Expr):
            value = following.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return inspect.cleandoc(value.value)
    return ""


def _definitions(body: list[ast.stmt], prefix: str = "") -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[prefix + node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {prefix + target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def _without_docstring(node: ast.stmt, lines: list[str]) -> Shown:
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    dropped = range(0)
    body = getattr(node, "body", [])
    if len(body) > 1 and ast.get_docstring(node) is not None:  # type: ignore[arg-type]
        dropped = range(body[0].lineno, body[0].end_lineno + 1)
        if not lines[dropped.stop - 1].strip():  # the blank line after it
            dropped = range(dropped.start, dropped.stop + 1)
    assert node.end_lineno is not None
    kept = [lines[i - 1] for i in range(first, node.end_lineno + 1) if i not in dropped]
    indent = len(kept[0]) - len(kept[0].lstrip())
    return Shown(first, "\n".join(line[indent:] for line in kept))
