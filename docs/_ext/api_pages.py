"""Writes docs/api/ when a build begins: a page for each room and family, an entry for each public name.

What a page says comes from docstrings and signatures; here is only which names are on which page, and in which order.
"""

import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import docstrings
import sources
from reference import doc_of_value, find
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.inspect import stringify_signature

import handgrad as hg

FAMILIES = (*hg.cases.FAMILIES,)
ROOMS = {
    "rules": "every operation, with its forward and its backward pass",
    "layers": "parameters around rules, losses, and how layers compose",
    "training": "steps, epochs, checkpoints, meshes",
    "folds": "per-example norms, clipping, variance, curvature: what factors know beyond the gradient",
    "factors": "gradients not yet multiplied out",
    "explain": "a network or a rule worked through in matrices, with its own numbers",
    "models": "whole networks, and their published weights",
    "crosscheck": "the checker, its report and its settings",
    "conformance": "the checks of another library's operations",
    "cases": "the table of rules, inputs and independent references",
}
BY_FAMILY = ("rules", "layers")
STORY = ("objective", "value_and_grad", "grad", "value_and_factors", "materialize", "custom_vjp", "custom_vjp_rule")
MEMBERS = [":members:", ":inherited-members: tuple, Exception, str"]


def names_of(module: types.ModuleType) -> list[str]:
    """What the module exports: its __all__, or what it defines or imports from our own files."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    ours = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [name for name, value in ours.items() if not inspect.ismodule(value) and _is_ours(value)]


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "handgrad")).startswith("handgrad")


def heading(text: str, sign: str) -> list[str]:
    return [text, sign * max(len(text), 3), ""]


def spoken(name: str) -> str:
    return name.replace("_", " ").capitalize()


def entry(room: str, name: str) -> list[str]:
    """One name of a room, documented as what it is."""
    found, full = (
        find(f"handgrad.{room}.{name}" if room else f"handgrad.{name}"),
        ".".join(part for part in ("handgrad", room, name) if part),
    )
    if isinstance(found, hg.Rule):
        return rule_entry(full, found)
    if inspect.isclass(found):
        fields = getattr(found, "_fields", ())  # the docstring describes them
        members = [*MEMBERS, *([f":exclude-members: {', '.join(fields)}"] if fields else [])]
        return [f".. autoclass:: {full}", *(f"   {option}" for option in members), ""]
    if inspect.isfunction(found):
        return [f".. autofunction:: {full}", ""]
    text = docstrings.rst(doc_of_value(room, name).splitlines())
    return [f".. py:data:: {name}", "", *(f"   {line}".rstrip() for line in text), ""]


def rule_entry(full: str, rule: Any) -> list[str]:
    """A rule as the function that it is: its forward pass's arguments and output."""
    signature = inspect.signature(rule.forward)
    output = signature.return_annotation
    if get_origin(output) is tuple:
        output = get_args(output)[0]
    shown = stringify_signature(signature.replace(return_annotation=output), unqualified_typehints=True)
    shown = docstrings.plain(shown)
    summary = docstrings.of(rule.forward)[0]
    name = full.rpartition(".")[2]
    passes = f"A rule: :py:obj:`{name}_forward`, :py:obj:`{name}_backward`."
    return [f".. py:function:: {name}{shown}", "", f"   {summary}", "", f"   {passes}", ""]


def table(room: str, names: list[str]) -> list[str]:
    """Each function and class with the first line of its docstring."""
    found = {name: find(f"handgrad.{room}.{name}") for name in names}
    rows = [f"   {name}" for name, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)]
    return [f".. py:currentmodule:: handgrad.{room}", "", ".. autosummary::", "   :nosignatures:", "", *rows, ""]


def stems(room: str, family: str) -> Iterator[tuple[str, types.ModuleType]]:
    """The files of a family, shared parts left out."""
    for path in sorted((sources.REPOSITORY / "src/handgrad" / room / family).glob("[!_]*.py")):
        yield path.stem, importlib.import_module(f"handgrad.{room}.{family}.{path.stem}")


def place(module: types.ModuleType) -> Callable[[str], tuple[int, int]]:
    """The order of a stem's names: each rule, its forward, its backward, its residuals; then what else there is."""
    rules = [name for name in vars(module) if isinstance(getattr(module, name), hg.Rule)]
    ranks = {}
    for i, rule in enumerate(rules):
        residuals = "".join(word.capitalize() for word in rule.split("_")) + "Residuals"
        ranks |= {name: (i, j) for j, name in enumerate((rule, f"{rule}_forward", f"{rule}_backward", residuals))}
    return lambda name: ranks.get(name, (len(rules), 0))


def family_page(room: str, family: str) -> list[str]:
    """The rules or the layers of a family, stem by stem, with links to the derivation and to the other room."""
    other = "layers" if room == "rules" else "rules"
    of_other = {stem for stem, _ in stems(other, family)}
    lines = [f".. _api-{room}-{family}:", "", *heading(f"{spoken(family)}: {room}", "=")]
    lines += [f".. py:currentmodule:: handgrad.{room}", ""]
    for stem, module in stems(room, family):
        lines += [f".. _api-{room}-{family}-{stem}:", "", *heading(stem.replace("_", " "), "-")]
        lines += [*docstrings.of(module), ""]
        links = []
        if (sources.REPOSITORY / f"docs/derivations/{family}/{stem}.md").exists():
            links.append(f":doc:`Derivation </derivations/{family}/{stem}>`")
        if stem in of_other:
            links.append(f":ref:`{other.capitalize()} <api-{other}-{family}-{stem}>`")
        links.append(f"`Source <{sources.url(sources.path_of(module.__name__))}>`__")
        lines += [" · ".join(links), ""]
        for name in sorted(module.__all__, key=place(module)):
            lines += entry(room, name)
    return lines


def room_page(room: str) -> list[str]:
    """Every name of a room: a table, then an entry for each."""
    module = importlib.import_module(f"handgrad.{room}")
    names = names_of(module)
    lines = [f".. _api-{room}:", "", *heading(f"hg.{room}", "="), *docstrings.of(module)]
    lines += ["", *table(room, names)]
    for name in names:
        lines += entry(room, name)
    return lines


def index_page() -> list[str]:
    """The front of the reference: the story's functions, and where every other top-level name is."""
    lines = [".. _api:", "", *heading("API reference", "=")]
    lines += [
        "``import handgrad as hg``. What most programs need is at the top level, and every name is in one room.",
        "",
        *(f"- :doc:`hg.{room} <{room}>`: {what}" for room, what in ROOMS.items()),
        "- :doc:`The pytest plugin <pytest_plugin>`: the fixture ``gradcheck``",
        "",
        ".. toctree::",
        "   :hidden:",
        "",
        *(f"   hg.{room} <{room}>" for room in ROOMS),
        "   The pytest plugin <pytest_plugin>",
        "",
        *heading("The story on one page", "-"),
        ".. py:currentmodule:: handgrad",
        "",
    ]
    rest = ("Rule", "Layer", "Loss", "InputError")
    for name in (*STORY, *rest):
        lines += entry("", name)
    lines += heading("At the top level", "-")
    shown = [name for name in dir(hg) if not inspect.ismodule(getattr(hg, name)) and name not in (*STORY, *rest)]
    lines += [" · ".join(f":py:obj:`{name} <handgrad.{name}>`" for name in shown), ""]
    return lines


def families_page(room: str, sentence: str) -> list[str]:
    title = heading(f"hg.{room}", "=")
    intro = docstrings.of(importlib.import_module(f"handgrad.{room}"))
    pages = [
        f"   {family.replace('_', ' ').capitalize()} <{room}/{family}>"
        for family in FAMILIES
        if any(stems(room, family))
    ]
    return [f".. _api-{room}:", "", *title, *intro, "", sentence, "", ".. toctree::", "   :maxdepth: 2", "", *pages, ""]


def pages() -> dict[str, list[str]]:
    """Path below docs/api, without its ending -> lines."""
    found = {"index": index_page(), **{room: room_page(room) for room in ROOMS if room not in BY_FAMILY}}
    found["rules"] = families_page("rules", "A rule is called as ``hg.rules.<name>``.")
    found["layers"] = families_page("layers", "Most layers and losses are at the top level too: ``hg.<name>``.")
    for room in BY_FAMILY:
        for family in FAMILIES:
            if any(stems(room, family)):
                found[f"{room}/{family}"] = family_page(room, family)
    plugin = importlib.import_module("handgrad_pytest")
    found["pytest_plugin"] = [*heading("The pytest plugin", "="), *docstrings.of(plugin)]
    found["pytest_plugin"] += [
        "",
        "How to use it: :doc:`/pytest`.",
        "",
        ".. autofunction:: handgrad_pytest.gradcheck",
        "",
    ]
    return found


def write(app: Sphinx) -> None:
    """Only what has changed, so that a second build reads only that; what is no page any more goes."""
    rooms = {name for name in dir(hg) if inspect.ismodule(getattr(hg, name))}
    if rooms != ROOMS.keys():
        raise ExtensionError(f"ROOMS of api_pages are not those of handgrad: {rooms ^ ROOMS.keys()}")
    folder = Path(app.srcdir) / "api"
    texts = {folder / f"{page}.rst": "\n".join(lines) for page, lines in pages().items()}
    for path in set(folder.rglob("*.rst")) - texts.keys():
        path.unlink()
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
