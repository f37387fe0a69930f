"""Our docstrings as reStructuredText: plain text with indented formulas, Google's sections, and paths of pages.

A formula is indented, between blank lines, and becomes a literal block. In prose, `name` becomes a link where the name
is known, `docs/page.md` a link to the page, and every sign that reStructuredText would read as markup is escaped.
"""

import inspect
import re

from sphinx.application import Sphinx
from sphinx.domains.python._object import PyObject

SECTION = re.compile(r"(Args|Arguments|Attributes|Example|Examples|Note|Raises|Returns|Yields):\s*$")
NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
COLON = "\ue000"  # stands for one while napoleon reads the lines
PAGE = re.compile(r"docs/([\w/-]+)\.md(#[\w-]+)?")


def rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, without its indentation, as reStructuredText."""
    out: list[str] = []
    in_section = in_block = in_example = False
    for line in lines:
        indented, blank = line.startswith(" "), not line.strip()
        after_blank = not out or not out[-1].strip()
        if blank:
            in_example = False
        elif not indented:
            in_block, in_section = False, bool(SECTION.match(line))
            in_example = in_example or line.startswith(">>>")
            if re.match(r"(Derivation|Source): ", line) and not after_blank:
                out.append("")
        elif after_blank and not in_section and not in_block:
            in_block = True
            out += [".. code-block:: text", "   :class: formula", ""]
        out.append(line if blank or in_block or in_example else in_prose(line))
    return out


def of(found: object) -> list[str]:
    """An object's docstring as reStructuredText."""
    return rst((inspect.getdoc(found) or "").splitlines())


def in_prose(line: str) -> str:
    """A line with its names and pages as links, and the rest of it as it reads."""
    pieces = line.split("`")
    if len(pieces) % 2 == 0:  # an apostrophe of code that goes on in the next line
        return _escaped(line)
    return "".join(_quoted(piece) if i % 2 else _linked(piece) for i, piece in enumerate(pieces))


def _quoted(code: str) -> str:
    if not NAME.fullmatch(code):
        return f"``{code}``"
    target = re.sub(r"^hg\.", "handgrad.", code.removesuffix("()"))
    return f":py:obj:`{code} <{target}>`"


def _linked(prose: str) -> str:
    parts = PAGE.split(prose)  # prose, page, anchor, prose, ...
    out = _escaped(parts[0])
    for page, rest in zip(parts[1::3], parts[3::3], strict=True):
        out += f":doc:`/{page}`" + _escaped(rest)
    return out


def _escaped(prose: str) -> str:
    return re.sub(r"\\|\*|\||`|(?<=\w)_(?!\w)", lambda found: "\\" + found[0], prose)


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = rst(lines)
    if what in ("attribute", "data", "property") and lines:  # whose first line napoleon would take apart at a colon
        lines[0] = lines[0].replace(": ", COLON)


def restore(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = [line.replace(COLON, ": ") for line in lines]


def plain(signature: str) -> str:
    """JAX's array by its public name, and no addresses of objects."""
    return re.sub(r"<(?:[^<>]|<[^<>]*>)*>", "...", signature.replace("jaxlib._jax.Array", "jax.Array"))


def process_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    return signature and plain(signature), returned and plain(returned)


def setup(app: Sphinx) -> dict[str, bool]:
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as our docstrings call them
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon, which reads the sections
    app.connect("autodoc-process-docstring", restore, priority=600)
    app.connect("autodoc-process-signature", process_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
