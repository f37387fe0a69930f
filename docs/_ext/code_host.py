"""Pages read on a code host, as plain Markdown, and here: what the site makes of their links before it reads them.

- A link to a file of the repository leads to the code host; to a family of rules or layers, to the reference.
- The link above a `{source}` block goes: the block has one.
- The lists of links on the front page and on those of the derivations are the menu of the site.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import sources
from sphinx.application import Sphinx

FENCED = re.compile(r"^(?P<ticks>```+).*?^(?P=ticks)$", re.DOTALL | re.MULTILINE)
LINK_ABOVE = re.compile(r"\[`\w+\.py`\]\([^)]*\)\n\n\Z")
OUTWARD = re.compile(r"\]\((\.\./[^)\s#]*)\)")
ENTRY = re.compile(r"^- \[[^\]]+\]\(([^)\s]+?)\.(?:md|rst)\)", re.MULTILINE)  # the first link of a line
PACKAGE = sources.REPOSITORY / "src/handgrad"


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """Prose, and the block of code that follows it."""
    at = 0
    for block in FENCED.finditer(text):
        yield text[at : block.start()], block[0]
        at = block.end()
    yield text[at:], ""


def target(path: Path, docs: Path, folder: Path) -> str | None:
    """What the site links to in a path's place; None for a page, which is linked as it is."""
    if path.is_relative_to(docs):
        return None
    if path == PACKAGE or (path.is_dir() and path.parent.parent == PACKAGE):
        of = "index" if path == PACKAGE else path.relative_to(PACKAGE).as_posix()
        page = docs / f"api/{of}.rst"
        if page.exists():
            return os.path.relpath(page, folder)
    return sources.url(path)


def menu(text: str) -> str:
    """A hidden toctree for each heading's list of links."""
    trees, caption = "", ""
    for section in re.split(r"^(?=##)", text, flags=re.MULTILINE):
        heading = re.match(r"#+ (.+)\n", section)
        caption = f":caption: {heading[1]}\n" if heading else ""
        entries = "\n".join(ENTRY.findall(section))
        trees += f"\n```{{toctree}}\n:hidden:\n{caption}\n{entries}\n```\n" if entries else ""
    return trees


def as_the_site_reads_it(app: Sphinx, docname: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    folder = (docs / docname).parent

    def link(found: re.Match[str]) -> str:
        to = target((folder / found[1]).resolve(), docs, folder)
        return f"]({to or found[1]})"

    text = ""
    for prose, block in pieces(source[0]):
        shown = LINK_ABOVE.sub("", prose) if block.startswith("```{source}") else prose
        text += OUTWARD.sub(link, shown) + block
    if docname in ("index", "derivations/index") or (folder == docs / "derivations" and (docs / docname).is_dir()):
        text += menu(text)
    source[0] = text


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", as_the_site_reads_it)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
