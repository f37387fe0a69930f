"""What the package brings in, and which way its imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import handgrad as hg

SOURCE = Path(hg.__file__).parent
# factors ← rules ← layers ← backprop ← folds ← models ← training ← cli: a part may import what stands before it. The
# checker stands on factors alone, beside the rules, so that it can't borrow from what it checks; models and cli call
# it.
FLOORS = ["checks", "meshes", "factors", "rules", "layers", "backprop", "folds", "models", "training", "cli"]
CHECKED = ("models", "cli")


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
        assert others <= {"factors"}
    else:
        assert others <= set(FLOORS[: FLOORS.index(here)]) | ({"crosscheck"} if here in CHECKED else set())
    if here not in ("training", "cli"):
        assert not any(name.split(".")[0] == "optax" for name in imported(path))


def test_import_brings_in_no_extra():
    program = (
        "import sys, handgrad\n"
        "late = {'optax', 'matplotlib', 'tyro', 'rich', 'sklearn', 'torch', 'jinja2', 'hypothesis'}\n"
        "print(sorted(late & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_everything_in_all_is_there():
    assert sorted(hg.__all__) == sorted(set(hg.__all__))
    assert all(hasattr(hg, name) for name in hg.__all__)
