"""A hint to install something works, and an experiment says what it needs beyond README's first command."""

import ast
import functools
import json
import re
import sys
import tomllib

import pytest
from conftest import REPOSITORY

from handgrad import extras

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXPERIMENTS = REPOSITORY / "experiments"
FILES = sorted(EXPERIMENTS.rglob("*.py"))
BROUGHT = {"jax": ("jax", "jaxlib", "numpy"), "rich": ("rich",)}  # by a requirement, beside a module of its name
NAMES = {"scikit-learn": "sklearn", "orbax-checkpoint": "orbax"}


@pytest.fixture
def python(tmp_path, monkeypatch):
    """An environment in this folder whose pip is the shell's."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setattr(extras.shutil, "which", lambda name: str(tmp_path / ".venv/bin" / name))
    monkeypatch.chdir(tmp_path)


def test_in_a_checkout(python, tmp_path, monkeypatch):
    assert extras.install("report") == f"pip install -e '{REPOSITORY}[report]'"
    monkeypatch.chdir(REPOSITORY)
    assert extras.install("report") == "pip install -e '.[report]'"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras.shutil, "which", lambda name: None)
    assert extras.install("report") == f".venv/bin/python -m pip install -e '{REPOSITORY}[report]'"
    monkeypatch.setattr(extras.shutil, "which", lambda name: "/usr/bin/pip")
    monkeypatch.chdir(REPOSITORY)
    assert extras.install("report") == f"{tmp_path}/.venv/bin/python -m pip install -e '.[report]'"


@pytest.mark.parametrize(
    ("written", "target"),
    [
        (None, "handgrad[data]"),
        ({"url": "file:///tmp/handgrad", "dir_info": {}}, "handgrad[data] @ file:///tmp/handgrad"),
        (
            {"url": "https://a.b/c", "vcs_info": {"vcs": "git", "commit_id": "f00"}},
            "handgrad[data] @ git+https://a.b/c@f00",
        ),
    ],
)
def test_installed_elsewhere(python, tmp_path, monkeypatch, written, target):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return json.dumps(written) if written else None

    monkeypatch.setattr(extras, "__file__", str(tmp_path / "lib/python3.11/site-packages/handgrad/extras.py"))
    monkeypatch.setattr(extras.importlib.metadata, "distribution", lambda name: Distribution())
    assert extras.install("data") == f"pip install '{target}'"


def test_there_is_one_wording_and_every_extra_exists():
    named = set()
    for path in (*(REPOSITORY / "src").rglob("*.py"), *FILES):
        text = path.read_text()
        if path.name != "extras.py":
            assert "pip install 'handgrad" not in text, path
        named |= set(re.findall(r"install\(['\"](\w+)['\"]\)", text))
        named |= set(re.findall(r"pip install -e '\.\[(\w+)\]'", text))
    for page in (REPOSITORY / "README.md", EXPERIMENTS / "README.md", *(REPOSITORY / "docs").rglob("*.md")):
        assert "pip install 'handgrad" not in page.read_text(), page  # nothing is on a package index
        for several in re.findall(r"pip install -e '\.\[([\w,]+)\]'", page.read_text()):
            named |= set(several.split(","))
    assert named
    assert named - {"extra"} <= set(PROJECT["optional-dependencies"])


def modules(*names):
    """What these extras, and handgrad itself, bring in, as modules are called."""
    found = set()
    for requirement in (
        *PROJECT["dependencies"],
        *(r for name in names for r in PROJECT["optional-dependencies"][name]),
    ):
        project, inside = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()
        if project == "handgrad":
            found |= modules(*inside.split(","))
        else:
            found |= set(BROUGHT.get(project, (NAMES.get(project, project.replace("-", "_")),)))
    return found


@functools.cache
def imports(path):
    """The packages that a file imports, anywhere in it, by a statement or by name; and its docstring."""
    tree, found = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found, ast.get_docstring(tree) or ""


def missing(path, seen):
    """The packages beyond README's first command that this file, or one that it imports, needs."""
    seen.add(path)
    found = set()
    for name in imports(path)[0]:
        stem = EXPERIMENTS / name.replace(".", "/")
        local = next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)
        if local and local not in seen:
            found |= missing(local, seen)
        package = name.split(".")[0]
        if not (EXPERIMENTS / package).with_suffix(".py").exists() and not (EXPERIMENTS / package).is_dir():
            found.add(package)
    return found - sys.stdlib_module_names - modules("experiments") - {"handgrad"}


def test_an_experiment_runs_after_readmes_first_command_or_says_what_to_install():
    page = (EXPERIMENTS / "README.md").read_text()
    needy = {}
    for path in EXPERIMENTS.glob("*.py"):
        said = re.findall(r"pip install -e '\.\[(\w+)\]'", imports(path)[1])
        needed = missing(path, set())
        assert needed <= modules(*said), f"{path.name} needs {needed}"
        assert needed or not said, f"{path.name} needs nothing to be installed"
        if needed:
            needy[path.name] = said
    assert "private_digits.py" in needy
    for name, (extra,) in needy.items():
        assert re.search(rf"`{name}`[^|]*`pip install -e '\.\[{extra}\]'`", page), f"experiments/README.md, of {name}"
