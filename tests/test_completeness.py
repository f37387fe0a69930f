"""Every rule has all that a rule must have, found by one stem, so that nobody needs to remember."""

import importlib
import inspect
import re
import typing
from pathlib import Path

import pytest
from case_programs import OPS
from conftest import REPOSITORY

import handgrad as hg
from handgrad import layers, rules
from handgrad.cases import FAMILIES

RULES, LAYERS = (REPOSITORY / "src/handgrad" / folder for folder in ("rules", "layers"))
PAGES, TESTS = REPOSITORY / "docs/derivations", REPOSITORY / "tests/rules"

# Stems without a layer of their own: why.
WITHOUT_A_LAYER = {
    "attention/relative_position": "an option of multi_head_attention",
    "attention/rotary": "an option of multi_head_attention",
    "attention/tiled_attention": "an option of multi_head_attention",
    "losses/curvature": "folds/curvature asks losses for it",
    "nielsen/equations": "equations, not operations",
}
# The layers that contain a rule under another name.
LAYER_OF = {
    "attention": "multi_head_attention",
    "tiled_attention": "multi_head_attention",
    "rotary": "multi_head_attention",
    "relative_position_bias": "multi_head_attention",
    "delta_rule": "delta_net",
    "selective_scan": "mamba",
    "state_space_duality": "mamba2",
    "contraction": "einsum",
    "top_k_gate": "mixture_of_experts",
    "load_balancing_loss": "mixture_of_experts",
}
# Layers of other layers, or of several rules: no stem in rules/.
COMPOSED = {
    "attention/latent",
    "attention/tokens",
    "sequences/gated_linear_attention",
    "sequences/retention",
    "sequences/rwkv_time_mixing",
    "sequences/sequences",
    "sequences/tied",
    "structure/auxiliary",
    "structure/branches",
    "structure/chain",
    "structure/recomputed",
    "structure/repeat",
    "structure/residual",
    "structure/shared",
}
# Tests of several stems of a family; and stems whose tests are their layer's, which computes with their equations.
SEVERAL = {"structure/structure"}
TESTED_AS_A_LAYER = {"structure/fixed_point", "structure/ode", "structure/reversible", "structure/root"}


def stems(folder: Path, pattern: str = "*.py") -> set[str]:
    """The stems in a folder of families, as "images/pooling"; what begins with an underscore is shared by stems."""
    files = [path for family in FAMILIES for path in (folder / family).glob(pattern) if not path.name.startswith("_")]
    return {f"{path.parent.name}/{path.stem}" for path in files}


STEMS = sorted(stems(RULES))
MODULES = {stem: importlib.import_module("handgrad.rules." + stem.replace("/", ".")) for stem in STEMS}
STEM_OF = {
    name.removesuffix("_forward"): stem
    for stem, module in MODULES.items()
    for name in module.__all__
    if name.endswith("_forward")
}


def test_one_stem_leads_everywhere():
    """The same stems in rules/, docs/derivations/, layers/ and tests/rules/, both ways."""
    assert {path.name for path in RULES.iterdir() if path.is_dir()} - {"__pycache__"} == FAMILIES.keys()
    pages = stems(PAGES, "*.md")
    assert set(STEMS) <= pages
    assert pages - set(STEMS) <= COMPOSED
    made = stems(LAYERS)
    assert set(STEMS) - made == WITHOUT_A_LAYER.keys()
    assert made - set(STEMS) == COMPOSED
    tested = {stem.replace("/test_", "/").removesuffix("_in_torch") for stem in stems(TESTS, "test_*.py")}
    assert set(STEMS) - tested == TESTED_AS_A_LAYER
    assert tested - set(STEMS) == SEVERAL


def test_one_family_of_cases():
    """A rule's rows stand in its own family's file."""
    rows = {(case.op, family) for family, module in FAMILIES.items() for case in module.CASES}
    assert rows - {("bp_batch", "nielsen"), ("bp_example", "nielsen")} == {
        (op, stem.split("/")[0]) for op, stem in STEM_OF.items()
    }
    assert STEM_OF.keys() == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_every_rule(op):
    forward, backward = rule = getattr(rules, op)
    public = MODULES[STEM_OF[op]].__all__
    residuals = getattr(rules, "".join(word.capitalize() for word in op.split("_")) + "Residuals")
    page = f"docs/derivations/{STEM_OF[op]}.md"
    assert {op, f"{op}_forward", f"{op}_backward", residuals.__name__} <= set(public)
    assert rule.__name__ == op
    assert issubclass(residuals, tuple)
    assert all(field in residuals.__doc__ for field in residuals._fields)
    for function in (forward, backward):
        assert f"Derivation: {page}" in inspect.getdoc(function)
    assert f"`{op}`" in (REPOSITORY / page).read_text(), f"{page} does not derive {op}"
    assert f"`{op}`" in (REPOSITORY / "docs/rules.md").read_text(), f"docs/rules.md does not name {op}"
    makes = typing.get_type_hints(getattr(layers, LAYER_OF.get(op, op)))["return"]
    assert issubclass(typing.get_origin(makes) or makes, hg.Layer | hg.Loss)


def test_rules_know_no_autodiff():
    """Hand-written means hand-written: no rule, nor what rules share, so much as names a differentiating function."""
    files = list(RULES.rglob("*.py"))
    assert len(files) > len(STEMS)
    for file in files:
        for name in ("grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose"):
            assert f"jax.{name}" not in file.read_text(), file.name


KEPT = re.compile(r"^\| \[`(\w+)`\]\(.*\| ([^|]+) \|$", re.MULTILINE)
# What the column calls otherwise than the field, or explains: a field's name -> its own.
CALLED = {"log_decay": "log a", "L_reference": "Lref", "input_lengths": "lengths", "label_lengths": "lengths"}
NO_FIELD = {"dropout": {"M"}, "sinkhorn": {"f", "g"}, "batch_norm": {"V"}}


@pytest.mark.parametrize("op", OPS)
def test_the_table_says_what_a_rule_keeps(op):
    """Every argument among the residuals is in the last column, and every letter there is a field."""
    cells = dict(KEPT.findall((REPOSITORY / "docs/rules.md").read_text()))
    if re.match(r"as `|its arguments", cells[op]):
        return
    fields = getattr(rules, "".join(word.capitalize() for word in op.split("_")) + "Residuals")._fields
    formulas = [re.sub(r"\\(?:mathrm)?|[{}_]", "", formula) for formula in re.findall(r"\$([^$]+)\$", cells[op])]
    said = {*formulas, *re.findall(r"\w+", re.sub(r"\$[^$]+\$", "", cells[op]))}
    for field in set(inspect.signature(getattr(rules, op).forward).parameters) & set(fields):
        assert said & {field, CALLED.get(field), field.replace("_", ""), field.split("_")[0]}, f"{op} keeps {field}"
    if "shape" not in cells[op]:
        letters = {formula for formula in formulas if re.fullmatch(r"[A-Za-z]", formula)}
        assert letters <= {*fields, *(field.lower() for field in fields), *NO_FIELD.get(op, ())}, op
