"""Objects of the package by the names that pages and docstrings give them, and where they are defined."""

import ast
import importlib
import inspect
import sys
from typing import Any

import sources


def find(name: str) -> Any:
    """The object of a dotted name, `hg` for `handgrad`; LookupError where there is none."""
    first, *rest = name.split(".")
    try:
        found = importlib.import_module("handgrad" if first == "hg" else first)
        for i, attribute in enumerate(rest):  # `handgrad.rules.linear` is a rule, though there is a folder of that name
            if not hasattr(found, attribute):
                importlib.import_module(".".join([found.__name__, *rest[i : i + 1]]))
            found = getattr(found, attribute)
    except (ImportError, AttributeError):
        raise LookupError(f"{name} is not in the package") from None
    return found


def url_of(module: str, name: str) -> str | None:
    """Where the code host shows the definition; None for what has no line in our files."""
    try:
        found = inspect.unwrap(find(f"{module}.{name}"))
        found = getattr(found, "forward", found)  # of a rule
        found = getattr(found, "fget", found)  # of a property
        path = inspect.getsourcefile(found)
        if path is None or not path.startswith(str(sources.REPOSITORY / "src")):
            return None
        return sources.url(type(sources.REPOSITORY)(path), inspect.getsourcelines(found)[1])
    except (LookupError, TypeError, OSError):
        return None


def doc_of_value(room: str, name: str) -> str:
    """The string below the assignment of a value that a room, or a stem, exports."""
    module = f"handgrad.{room}" if room else "handgrad"
    return sources.text_below(_defining(module, name), name)


def _defining(module: str, name: str) -> str:
    """The module that assigns the name: this one, or one from which it imports, in the end."""
    if name in sources.definitions(module):
        return module
    nodes = ast.walk(ast.parse(sources.path_of(module).read_text()))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("handgrad.")]
    for node in froms:
        if any(alias.name in (name, "*") for alias in node.names) and hasattr(sys.modules[str(node.module)], name):
            return _defining(str(node.module), name)
    raise LookupError(f"{module} does not import {name} from where it is assigned")
