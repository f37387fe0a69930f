"""Objects of the package by the names that pages and docstrings give them, and where they are defined."""

import importlib
import inspect
from typing import Any

import sources


def find(name: str) -> Any:
    """The object of a dotted name, `hg` for `handgrad`; LookupError where there is none."""
    parts = name.split(".")
    parts[0] = "handgrad" if parts[0] == "hg" else parts[0]
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        try:
            for attribute in parts[length:]:
                found = getattr(found, attribute)
        except AttributeError:
            break
        return found
    raise LookupError(f"{name} is not in the package")


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
