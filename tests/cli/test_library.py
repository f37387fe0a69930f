"""The library's own rules all come before the checker, on inputs that show something, beside strangers' references."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import OPS, PUBLIC
from rich.console import Console

from handgrad import rules
from handgrad.cli import whole
from handgrad.cli.library import LIBRARY, Entry
from handgrad.cli.library.entry import normal

BY_NAME = {entry.name: entry for entry in LIBRARY}
BP = [name for name in PUBLIC if name.startswith("bp")]
PLAN = whole.Plan(rule_dtypes=("float64",), network_dtypes=("float32",), networks=2, draws=2, max_depth=1)


def test_every_rule_has_a_row():
    assert {entry.op for entry in LIBRARY} == OPS.keys() | {"bp_batch", "bp_example"}
    assert len(BY_NAME) == len(LIBRARY)


@pytest.mark.parametrize("name", BP)
def test_every_equation_of_backpropagation_has_a_row(name, monkeypatch):
    entry = BY_NAME["bp_batch rows" if name.endswith("batch") else "bp_example column"]
    C, residuals = entry.forward(*entry.arguments(0))
    monkeypatch.setattr(rules, name, None)
    with pytest.raises(TypeError, match="NoneType"):
        entry.backward(residuals, jnp.ones_like(C))


@pytest.mark.parametrize("entry", LIBRARY, ids=lambda entry: entry.name)
def test_inputs_and_reference(entry, monkeypatch):
    arguments = entry.arguments(0)
    floats = [a for a in arguments if a.dtype == np.float64]
    numbers = np.concatenate([a.ravel() for a in floats])
    assert len(np.unique(numbers)) == numbers.size
    assert (numbers > 0).any()
    assert (numbers < 0).any() or entry.op == "binary_cross_entropy"
    assert all(np.array_equal(a, b) for a, b in zip(arguments, entry.arguments(0), strict=True))
    assert not np.array_equal(arguments[0], entry.arguments(1)[0])

    @jax.jit
    def both(*arguments):
        Y = entry.forward(*arguments)[0]
        for name in PUBLIC:  # the reference stands on its own
            monkeypatch.setattr(rules, name, None)
        return Y, entry.target(*arguments)

    for mine, theirs in zip(*map(jax.tree.leaves, both(*arguments)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-15)


def checked(library, plan=PLAN):
    console = Console(width=80, file=io.StringIO(), record=True)
    reports = whole.check_library(plan, console, library)
    return reports, console.export_text()


def test_a_table_and_a_sentence():
    reports, text = checked([BY_NAME["linear no bias"], BY_NAME["huber_loss integers"]])
    assert [report.verdict for report in reports] == ["PASS"] * 3
    assert {report.name for report in reports} == {
        "linear no bias in float64",
        "huber_loss integers in float64",
        "2 random networks in float32",
    }
    lines = text.strip().splitlines()
    assert lines[0].split() == ["rule", "dtype", "verdict", "ρ", "error", "tolerance", "power", "mutants", "s"]
    assert lines[2].split()[:3] == ["linear", "float64", "PASS"]
    assert lines[4].split()[:5] == ["2", "random", "networks", "float32", "PASS"]
    killed, made = whole.mutants(reports)
    assert killed == made > 100
    sentence = " ".join(text.split("\n\n")[-1].split())
    assert sentence.startswith("PASS: every gradient is right; 2 rules on 2 inputs in float64, 2 random networks, ")
    assert f" {killed} of {made} gradients broken on purpose caught; cpu (cpu), jax {jax.__version__}, " in sentence


def test_the_whole_report_of_a_wrong_rule():
    wrong = Entry(
        "tanh",
        "twice",
        normal((3, 4)),
        jnp.tanh,
        pair=(lambda X: (jnp.tanh(X), X), lambda X, dY: (2 * dY / jnp.cosh(X) ** 2,)),
    )
    reports, text = checked([wrong, BY_NAME["identity rows"]])
    assert [report.verdict for report in reports] == ["FAIL", "PASS", "PASS"]
    assert "\nFAIL  tanh twice in float64: X: 2 × too large\n" in text
    assert "FAIL: 1 of 3 checks found a wrong gradient; 2 rules on 2 inputs in float64" in text


def test_another_dtype():
    (report,) = [one.report for one in whole.check_rules(PLAN._replace(rule_dtypes=("bfloat16",)), LIBRARY[:1], bar())]
    assert report.ok
    assert report.rows[0].dtype == "bfloat16"
    assert report.control is None


def bar():
    return whole.progress_bar(Console(file=io.StringIO()))


def test_the_table_fits_eighty_columns():
    found = [whole.Checked("softmax_cross_entropy", "rows", "bfloat16", report(), 103.4)]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(whole.table(found))
    line = console.export_text().splitlines()[2]
    assert line.split() == [
        "softmax_cross_entropy",
        "bfloat16",
        "PASS",
        "1.25",
        "3e-03",
        "1e-01",
        "2e-01",
        "9/10",
        "103",
    ]


def report():
    from handgrad.crosscheck import Control, Report, Row

    numbers = {"rho": 1.25, "error": 3e-3, "tolerance": 0.1, "power": 0.2, "index": (0,), "bad": 0.0}
    texts = {"by_hand": "1", "by_autodiff": "1", "by_float64": "1", "by_differences": "1"}
    row = Row("X", "PASS", (1,), "bfloat16", **numbers, **texts)
    return Report("r", "PASS", rows=(row,), control=Control({"scale": 9}, ("X: sign",)))
