"""What the package brings in, and which way its imports point."""

import ast
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import handgrad as hg

SOURCE = Path(hg.__file__).parent
PAGES = [
    REPOSITORY / "README.md",
    *sorted(set((REPOSITORY / "docs").rglob("*.md")) - {REPOSITORY / "docs/changelog.md"}),
]
# factors ← rule ← rules ← layers ← backprop ← folds ← models ← training ← explain ← cli: a part may import what stands
# before it.
# The checker stands on factors alone, beside the rules, so that it can't borrow from what it checks; models,
# training and cli call it. The cases know the rules alone, and are read by conformance, explain and cli.
GROUND = ["extras", "pages", "checks", "meshes", "factors"]
FLOORS = [*GROUND, "rule", "rules", "layers", "backprop", "folds", "models", "training", "cases", "conformance"]
FLOORS += ["explain", "cli"]
CHECKED = ("models", "training", "cli")


def imported(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        name
        for node in nodes
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    } | {
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "handgrad"
        for alias in node.names
    }


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    here = path.relative_to(SOURCE).with_suffix("").parts[0]
    others = {name.split(".")[1] for name in imported(path) if name.startswith("handgrad.")} - {here}
    if here == "__init__":
        return
    if here == "crosscheck":
        assert others <= {"extras", "pages", "factors"}
    elif here == "cases":
        assert others <= {"rules"}
    else:
        assert others <= set(FLOORS[: FLOORS.index(here)]) | ({"crosscheck"} if here in CHECKED else set())
    if here not in ("training", "cases"):
        assert not any(name.split(".")[0] == "optax" for name in imported(path))


LATE = {"optax", "matplotlib", "tyro", "rich", "sklearn", "torch", "jinja2", "hypothesis", "orbax", "tensorboardX"}


def test_import_brings_in_no_extra():
    """`hg.training` and `hg.cases` are there all the same, imported when they are first used."""
    program = (
        "import sys, handgrad as hg\n"
        f"print(sorted({LATE} & sys.modules.keys()))\n"
        "print(hg.training.fit.__name__, 'optax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "fit True"]


def test_what_a_newcomer_sees():
    """Every name there is, documented, and none that is only a means: no module below the rooms, no import."""
    names = dir(hg)
    assert {"linear", "value_and_grad", "clipped_grad", "check_rule", "training", "cases"} <= set(names)
    assert all(inspect.getdoc(getattr(hg, name)) for name in names)
    assert not {"backprop", "checks", "meshes", "typing", "importlib"} & set(names)
    with pytest.raises(AttributeError, match="module 'handgrad' has no attribute 'lineer'"):
        hg.lineer  # noqa: B018


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_names_that_the_pages_use(page):
    text = re.sub(r"^```\{source\} .*", "", page.read_text(), flags=re.MULTILINE)  # modules: see test_docs
    used = set(re.findall(r"\b(?:hg|handgrad)((?:\.[A-Za-z]\w*)+)\b(?!/)", text))
    for path in used - {".square"}:  # the rule that docs/adding-a-rule.md adds
        functools.reduce(getattr, path.split(".")[1:], hg)
