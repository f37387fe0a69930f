"""handgrad check without a target: what it prints and what it says of a wrong rule."""

import io

import jax
import jax.numpy as jnp
from rich.console import Console

from handgrad.cases import Case
from handgrad.cases.case import normal
from handgrad.cli import whole
from handgrad.crosscheck import Control, Report, Row
from handgrad.rules import Rule

BY_NAME = {str(case): case for case in whole.LIBRARY}
PLAN = whole.Plan(rule_dtypes=("float64",), network_dtypes=("float32",), networks=2, draws=2, max_depth=1)


def checked(library):
    console = Console(width=80, file=io.StringIO(), record=True)
    reports = whole.check_library(PLAN, console, library)
    return reports, console.export_text()


def test_a_table_and_a_sentence():
    reports, text = checked([BY_NAME["linear no-bias"], BY_NAME["huber_loss rows"]])
    assert [report.verdict for report in reports] == ["PASS"] * 3
    assert {report.name for report in reports} == {
        "linear no-bias in float64",
        "huber_loss rows in float64",
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
    assert f" {killed} of {made} mutants killed; cpu (cpu), jax {jax.__version__}, " in sentence


def test_the_whole_report_of_a_wrong_rule():
    def tanh_forward(X):
        return jnp.tanh(X), X

    def tanh_backward(X, dY):
        return (2 * dY / jnp.cosh(X) ** 2,)

    wrong = Case(Rule(tanh_forward, tanh_backward), "twice", normal((3, 4)), jnp.tanh)
    reports, text = checked([wrong, BY_NAME["identity rows"]])
    assert [report.verdict for report in reports] == ["FAIL", "PASS", "PASS"]
    assert "\nFAIL  tanh twice in float64: X: 2 × too large\n" in text
    assert "FAIL: 1 of 3 checks found a wrong gradient; 2 rules on 2 inputs in float64" in text


def test_another_dtype():
    bar = whole.progress_bar(Console(file=io.StringIO()))
    (checked,) = whole.check_rules(PLAN._replace(rule_dtypes=("bfloat16",)), whole.LIBRARY[:1], bar)
    report = checked.report
    assert report.ok
    assert report.rows[0].dtype == "bfloat16"
    assert report.control is None


def test_the_table_fits_eighty_columns():
    numbers = {"rho": 1.25, "error": 3e-3, "tolerance": 0.1, "power": 0.2, "index": (0,), "bad": 0.0}
    texts = dict.fromkeys(("by_hand", "by_autodiff", "by_float64", "by_differences"), "1")
    row = Row("X", "PASS", (1,), "bfloat16", **numbers, **texts)
    report = Report("r", "PASS", rows=(row,), control=Control({"scale": 9}, ("X: sign",)))
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(whole.table([whole.Checked("softmax_cross_entropy", "rows", "bfloat16", report, 103.4)]))
    line = console.export_text().splitlines()[2]
    assert " ".join(line.split()) == "softmax_cross_entropy bfloat16 PASS 1.2 3e-03 1e-01 2e-01 9/10 103"
