"""What every page gets: links from the names that it quotes, and figures that follow the theme.

- `hg.value_and_grad` in a sentence links to the reference, `jax.vjp` to JAX's pages.
- A figure of docs/figures stands in the page itself, so that its colors change with the page's.
"""

import html
import re
from pathlib import Path
from typing import Any

import reference
from api_pages import ROOMS
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

QUOTED = re.compile(r"(hg|handgrad|jax|jnp|optax)((?:\.[A-Za-z_]\w*)+)(\(.*\))?")
MODULES = {"hg": "handgrad", "jnp": "jax.numpy"}
WIDE = ("index", "rules")


class NamesToLinks(SphinxTransform):
    """Code in a sentence that is a public name, with or without its arguments."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            found = QUOTED.fullmatch(node.astext())
            if found is None or _inside(node, nodes.title | nodes.reference | addnodes.pending_xref):
                continue
            target = MODULES.get(found[1], found[1]) + found[2]
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True, refwarn=False
            )
            node.replace_self(link)
            link += node


def _inside(node: nodes.Node, kinds: Any) -> bool:
    return node.parent is not None and (isinstance(node.parent, kinds) or _inside(node.parent, kinds))


class DashesOfFields(SphinxTransform):
    """The hyphens that Sphinx writes between a parameter and its description, as the dash that they stand for."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if text == " -- ":
                text.parent.replace(text, nodes.Text(" – "))


class ExactPython(PythonDomain):
    """Python's names as they are written: never any method of that name, wherever it may be."""

    def find_obj(self, env: Any, modname: Any, classname: Any, name: Any, type: Any, searchmode: int = 0) -> Any:  # noqa: A002
        return super().find_obj(env, modname, classname, name, type, 0)


def to_entry(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, child: nodes.Element) -> Any:
    """A name of the package by any of its paths: `hg.linear`, `handgrad.layers.linear`, `Layer`."""
    if node.get("refdomain") != "py":
        return None
    target, domain = node["reftarget"], env.domains.python_domain
    name = target.split(".")[-1]
    for entry in [f"handgrad.{name}", *(f"handgrad.{room}.{name}" for room in ROOMS)]:
        if entry in domain.objects and ("." not in target or _same(entry, target)):
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", entry, node, child)
    return None


def _same(entry: str, target: str) -> bool:
    try:
        return reference.find(entry) is reference.find(target)
    except LookupError:
        return False


class FiguresInThePage(SphinxPostTransform):
    """An svg of docs/figures or of a notebook as an element of the page: an image follows the system's colors."""

    default_priority = 5
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.image)):
            uri = node.get("uri", "")
            if not re.fullmatch(r"(.*/)?(figures|jupyter_execute)/\w+\.svg", uri):
                continue
            path = Path(self.app.srcdir) / uri
            if not path.exists():  # of which Sphinx has warned
                continue
            drawing = nodes.raw("", figure(path, node.get("alt", "")), format="html")
            alone = isinstance(node.parent, nodes.paragraph) and len(node.parent) == 1  # no drawing is in a paragraph
            (node.parent if alone else node).replace_self(drawing)


def figure(path: Path, alt: str) -> str:
    """The drawing with names that are its own on the page, and colors that follow the page's theme."""
    text = path.read_text()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    box = f"figure-{path.stem}"
    svg = re.sub(r'\bid="', f'id="{box}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{box}-", svg)
    svg = re.sub(r"<style[^>]*>(.*?)</style>", lambda style: f"<style>{themed(style[1], f'#{box}')}</style>", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
    return f'<div class="drawing" id="{box}">{svg}</div>'


def themed(css: str, box: str) -> str:
    """Rules for this drawing alone. Those for a dark system hold where the page is dark."""
    dark = re.fullmatch(r"@media \(prefers-color-scheme: dark\) ?{(.*)}", css, re.DOTALL)
    if dark is None:
        return f"{box} {{{css}}}"
    by_system = f'@media (prefers-color-scheme: dark) {{body:not([data-theme="light"]) {box} {{{dark[1]}}}}}'
    return f'body[data-theme="dark"] {box} {{{dark[1]}}} {by_system}'


def page_context(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Wide pages have no table of contents beside them; generated ones have no file on the code host."""
    if name in WIDE:
        context["furo_hide_toc"] = True
    if name.startswith(("api/", "genindex", "py-modindex", "search")):
        context["theme_top_of_page_buttons"] = []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_domain(ExactPython, override=True)
    app.add_transform(NamesToLinks)
    app.add_transform(DashesOfFields)
    app.add_post_transform(FiguresInThePage)
    app.connect("html-page-context", page_context, priority=900)  # after the theme's
    app.connect("missing-reference", to_entry, priority=400)  # before intersphinx
    return {"parallel_read_safe": True, "parallel_write_safe": True}
