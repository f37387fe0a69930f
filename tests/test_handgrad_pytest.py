"""The pytest plugin, as its users run it: their tests, options, workers."""

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

import handgrad as hg
from handgrad_pytest import recognize

SOURCE = Path(hg.__file__).parents[1]
TESTS = """
import jax, jax.numpy as jnp, numpy as np, pytest

X = np.array([[0.5, -1.0, 2.0], [0.0, 1.5, -0.5]])
Y = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
pytestmark = pytest.mark.gradcheck(dtype="float32", differences=False, contracts=False, transforms=(), control=False)


@jax.custom_vjp
def softmax(X):
    return jax.nn.softmax(X)


def forward(X):
    P = jax.nn.softmax(X)
    return P, P


def backward(P, dP):
    return (P * (dP - jnp.mean(P * dP, axis=-1, keepdims=True)),)


softmax.defvjp(forward, backward)


@pytest.mark.gradcheck(draws=2)
def test_right(gradcheck):
    report = gradcheck((forward, lambda P, dP: (P * (dP - jnp.sum(P * dP, axis=-1, keepdims=True)),)), X, seed=4)
    assert [report.settings[name] for name in ("dtype", "cotangents", "seed")] == ["float32", 2, 4]
    report = gradcheck((lambda X: jnp.sum(X**2), lambda X: 2 * X), Y, dtype="float64", name="squares")
    assert report.settings["dtype"] == "float64"


@pytest.mark.parametrize("shape", ["2/3"])
def test_wrong(gradcheck, shape):
    gradcheck(softmax, X, reference=lambda X: jnp.exp(X) / jnp.exp(X).sum(-1, keepdims=True))


def test_undecided(gradcheck):
    gradcheck.rule(lambda X: (2 * X, None), lambda residuals, dY: (2 * dY,), np.zeros((2, 3)))


@pytest.mark.gradcheck("float32")
def test_marker(gradcheck):
    gradcheck(softmax, X)
"""


@pytest.fixture
def alone(monkeypatch):
    """No plugin but those that a test names, as in another project."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


def test_checks_of_a_run(pytester, alone):
    """On a worker, with strict markers and warnings as errors: reports, settings, the lines of -v, and the pages."""
    pytester.makepyfile(TESTS)
    plugins = ("-p", "handgrad_pytest", "-p", "xdist", "-n", "1")
    run = pytester.runpytest_subprocess(*plugins, "-v", "-W", "error", "--strict-markers", "--gradcheck-html", "pages")
    run.assert_outcomes(passed=1, failed=3)
    printed = run.stdout.str()
    start = printed.index("FAIL  softmax: X: ")
    assert re.search(r"culprit: hand\n(E .*\n)*E +FAIL +X .*\n(E .*\n)*E +settings: ", printed[start:])  # to its end
    assert "gradcheck(softmax, X, reference=" in printed[:start]
    assert "handgrad_pytest.py" not in printed
    run.stdout.fnmatch_lines(
        [
            "*INCONCLUSIVE  backward: the inputs are all zero*",
            "*An inconclusive check fails the test*",
            "the marker gradcheck takes settings by name, got ('float32',)",
            "*= gradient checks =*",
            "*.py::test_right  PASS  backward: error *, tolerance * (X); power *; * s",
            "*.py::test_right  PASS  squares: *",
        ]
    )
    stem = "test_checks_of_a_run.py-test_"
    pages = sorted(path.name.removeprefix(stem) for path in pytester.path.glob("pages/*"))
    assert pages[:3] == ["right-2.html", "right.html", "undecided.html"]
    assert fnmatch(pages[3], "wrong[[]2-3]-????????.html")
    assert "off by 2 times its largest element" in (pytester.path / "pages" / f"{stem}{pages[3]}").read_text()


def test_it_costs_nothing_unused(pytester, alone, monkeypatch):
    """Installed, it is imported at every start of pytest, and brings in neither JAX nor the package; it can be left
    out."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    points = "\n".join(f"{name} = {module}" for name, module in project["entry-points"]["pytest11"].items())
    pytester.mkdir("other-1.dist-info").joinpath("entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    pytester.path.joinpath("other-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), str(SOURCE)]))
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            print("plugin:", "handgrad_pytest" in sys.modules, {"jax", "handgrad", "numpy"} & sys.modules.keys())
        """
    )
    for option, there in (("handgrad", True), ("no:handgrad", False)):
        run = subprocess.run([sys.executable, "-m", "pytest", "-s", "-p", option], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        assert f"plugin: {there} set()" in run.stdout


def test_what_it_is_leads_to_its_check():
    def scalar(X):
        return jnp.sum(X**2)

    def forward(X):
        return X, X

    X = np.ones((2, 3))
    forms = {
        "check_custom_vjp": [jax.custom_vjp(scalar), scalar],
        "check_rule": [hg.rules.tanh, (forward, scalar), [forward, scalar]],
        "check_function": [(scalar, forward), (lambda X: float(np.sum(X)), forward)],
        "check_layer": [hg.tanh(), hg.chain(hg.linear(3))],
    }
    for form, subjects in forms.items():
        assert [recognize(subject, (X,)) for subject in subjects] == [form] * len(subjects)
    assert recognize((lambda X: X.missing, scalar), (X,)) == "check_rule"  # whose report says what was raised
    with pytest.raises(TypeError, match=r"a Rule, a layer, \(forward, backward\) or \(f, grad_f\), got int"):
        recognize(3, (X,))
