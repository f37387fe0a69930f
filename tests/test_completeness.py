"""Every rule has all that a rule must have, so that nobody needs to remember."""

import inspect
from pathlib import Path

import pytest
from cases import CASES, LAYERS, OPS, PUBLIC, STEMS
from conftest import REPOSITORY

import handgrad as hg
from handgrad import rules


def test_the_rules_are_found():
    assert {"linear", "relu", "softmax_cross_entropy"} <= OPS.keys()


@pytest.mark.parametrize("op", OPS)
def test_every_rule(op):
    forward, backward = getattr(rules, op)
    residuals = getattr(rules, "".join(word.capitalize() for word in op.split("_")) + "Residuals")
    page = f"docs/derivations/{OPS[op]}.md"
    assert {f"{op}_forward", f"{op}_backward", residuals.__name__} <= set(PUBLIC)
    assert issubclass(residuals, tuple)
    assert residuals._fields
    assert all(field in residuals.__doc__ for field in residuals._fields)
    assert any(case.op == op for case in CASES), f"{op} has no row in tests/cases/"
    for function in (forward, backward):
        assert f"Derivation: {page}" in inspect.getdoc(function)
    assert f"`{op}`" in (REPOSITORY / page).read_text(), f"{page} does not derive {op}"
    assert f"`{op}`" in (REPOSITORY / "docs/rules.md").read_text(), f"docs/rules.md does not name {op}"


@pytest.mark.parametrize("op", OPS)
def test_every_rule_has_a_layer_or_loss(op):
    assert isinstance(LAYERS[op](), hg.Layer | hg.Loss)


@pytest.mark.parametrize("stem", STEMS)
def test_every_family_has_its_page(stem):
    assert (REPOSITORY / f"docs/derivations/{stem}.md").exists()


def test_everything_public_is_documented():
    public = [value for name, value in vars(hg.factors).items() if name[0] != "_"]
    assert all(inspect.getdoc(thing) for thing in [*public, *(getattr(rules, name) for name in PUBLIC)])


def test_rules_know_no_autodiff():
    """Hand-written means hand-written: no rule, nor what rules share, so much as names a differentiating function."""
    files = sorted(Path(rules.__path__[0]).rglob("*.py"))
    assert len(files) > len(STEMS)
    for file in files:
        if file.name == "rule.py":  # which tells JAX of the two passes
            continue
        for name in ("grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose"):
            assert f"jax.{name}" not in file.read_text(), file.name
