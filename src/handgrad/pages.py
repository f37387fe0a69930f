"""Self-contained HTML pages from templates: what the explanation and the checker's report have in common."""

import importlib
from typing import Any

from handgrad.extras import install


def environment(where: str, package: str, *also: str) -> Any:
    """jinja2's environment over the templates of a package; an undefined name is an error.

    Args:
      where: the function that an error names.
      also: modules of the `report` extra that the page needs besides.
    Raises:
      ModuleNotFoundError: without the `report` extra.
    """
    needed = ("jinja2", *also)
    try:
        jinja2, *_ = map(importlib.import_module, needed)
    except ModuleNotFoundError as error:
        if error.name not in needed:
            raise
        message = f"{where}: a page needs {error.name}, which isn't installed: {install('report')}"
        raise ModuleNotFoundError(message, name=error.name) from None
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
