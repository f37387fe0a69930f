"""The report as text, to the letter."""

import dataclasses
import math
import os

import numpy as np
import pytest

from handgrad.crosscheck.report.report import Contract, Control, Repair, Report, Row
from handgrad.crosscheck.report.text import figure, inline, render

BAD = Row(
    leaf="X",
    status="FAIL",
    shape=(4, 3),
    dtype="float64",
    rho=4.5e15,
    error=1.0,
    tolerance=1.23e-15,
    power=2.1e-15,
    index=(3, 1),
    by_hand=-0.4938,
    by_autodiff=-0.2469,
    by_float64=-0.2469,
    by_differences=-0.2469,
    bad=1.0,
    diagnosis="2 × too large",
)
GOOD = Row("b", "PASS", (3,), "float32", math.nan, 0.0, 1.2e-7, math.inf, (2,), 1.0, 1.0, 1.0, None, 0.0)
KEPT = (Contract("linear", "PASS", "5e-17"), Contract("zero", "PASS"))
REPORT = Report(
    name="softmax_backward",
    verdict="FAIL",
    reason="dX is 2 × too large",
    culprit="hand",
    rows=(BAD, GOOD),
    contracts=(*KEPT, Contract("dtype kept", "FAIL", "float32 came out"), Contract("vmap", "SKIPPED", "no batch")),
    kinks=("X stands on relu's kink at (0, 3).",),
    control=Control({"scale": 4, "sign": 5}, ("X: × 1.000000001", "X[0]: [bold]off[/bold]"), 2),
    notes=("Two draws agree.",),
    settings={"seed": 0, "limits": (math.inf, 1e-3), "versions": {"jax": "0.10.2", "numpy": "2.4"}},
    reproduce="check_rule(f, b,  *example(17))",
    repair=(
        Repair("mine.py", 41, "s = jnp.mean(P * dP, -1)", "a sum instead of the mean"),
        Repair(os.path.abspath("b.py"), 7, "", "W transposed"),
    ),
)
WHOLE = """\
FAIL  softmax_backward: dX is 2 × too large
culprit: hand
repair: mine.py:41  `s = jnp.mean(P * dP, -1)`  is right with a sum instead of the mean
repair: b.py:7  is right with W transposed

status  leaf  array           error  tolerance        ρ    power
FAIL    X     float64[4,3]  1.0e+00    1.2e-15  4.5e+15  2.1e-15
        2 × too large
        by hand -0.4938, autodiff -0.2469, float64 -0.2469, differences -0.2469
        at (3, 1), the worst element; 100 % are outside the tolerance
PASS    b     float32[3]          0    1.2e-07        -        ∞

kink: X stands on relu's kink at (0, 3).
contracts: 2 of 3 passed: linear, zero; 1 skipped: vmap (no batch)
  FAIL  dtype kept: float32 came out
control: 9 of 11 mutants killed (2 more compute the same numbers)
  2 survived: they differ by no more than rounding at these inputs, so this run can't detect such errors. They don't \
count against the gradient:
    X: × 1.000000001
    X[0]: [bold]off[/bold]
note: Two draws agree.
settings: seed=0, limits=(inf, 0.001), versions=(jax=0.10.2, numpy=2.4)
reproduce: check_rule(f, b,  *example(17))"""
NARROW = """\
FAIL  softmax_backward: dX is 2 × too
      large
culprit: hand
repair: mine.py:41  `s = jnp.mean(P * dP, -1)`
        is right with a sum instead of
          the mean
repair: b.py:7
        is right with W transposed
"""


def test_the_whole():
    assert render(REPORT) == str(REPORT) == WHOLE
    lines = WHOLE.splitlines()
    survived = next(i for i, line in enumerate(lines) if "survived" in line)
    assert render(REPORT, 100).splitlines()[:survived] == lines[:survived]


@pytest.mark.parametrize("width", [80, 120])
def test_lines_are_broken_between_words(width):
    long = " ".join(["word"] * 100)
    row = dataclasses.replace(BAD, leaf="blocks.attention.query.weight", diagnosis="sign", reason=long)
    report = dataclasses.replace(REPORT, reason=long, rows=(row, GOOD), kinks=(long,), notes=(long,))
    *lines, reproduce = render(report, width).splitlines()
    table = lines.index(next(line for line in lines if line.startswith("status")))
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(lines).split()).count(long) == 4
    assert reproduce == "reproduce: check_rule(f, b,  *example(17))"
    assert all(line.startswith(" ") for line in lines[1:table] if line.startswith("word"))


def test_a_narrow_head():
    assert render(REPORT, 40).startswith(NARROW)


def test_a_pass_is_short():
    report = Report("f", "PASS", rows=(GOOD,), contracts=KEPT, control=Control({"scale": 20, "sign": 3}))
    first, *_, contracts, control = lines = render(report).splitlines()
    assert len(lines) == 7
    assert first == "PASS  f"
    assert (contracts, control) == ("contracts: 2 of 2 passed: linear, zero", "control: 23 of 23 mutants killed")


def test_nothing_but_a_verdict():
    assert render(Report("f", "PASS")) == "PASS  f"
    assert render(Report("f", "INVALID", "it returns None")) == "INVALID  f: it returns None"


def test_the_order_of_rows_is_kept():
    rows = tuple(dataclasses.replace(GOOD, leaf=leaf) for leaf in ("z", "a", "m"))
    lines = render(Report("f", "PASS", rows=rows)).splitlines()
    assert [line.split()[1] for line in lines[3:6]] == ["z", "a", "m"]


def test_long_names_are_folded_after_dots():
    row = dataclasses.replace(BAD, leaf="p.encoder.attention.query.weight_matrix" + "x" * 30)
    table = render(Report("f", "FAIL", rows=(row, GOOD)), 80).splitlines()[3:7]
    assert [line[8:28].strip() for line in table] == [
        "p.encoder.attention.",
        "query.weight_",
        "matrix" + "x" * 14,
        "x" * 16,
    ]
    assert row.leaf in render(Report("f", "FAIL", rows=(row, GOOD)))


def test_the_widest_columns_fit():
    row = dataclasses.replace(
        BAD, leaf="params.W" * 3, status="INCONCLUSIVE", dtype="complex128", shape=(128, 64, 3, 3)
    )
    assert max(map(len, render(Report("f", "INCONCLUSIVE", rows=(row, GOOD)), 80).splitlines())) <= 80


def test_names_are_taken_to_the_letter():
    row = dataclasses.replace(BAD, leaf="[red]W[0]:smile:", diagnosis="[/] \\[b]")
    lines = render(Report("[b]f", "FAIL", rows=(row,))).splitlines()
    assert lines[0] == "FAIL  [b]f"
    assert lines[3].split()[1] == "[red]W[0]:smile:"
    assert lines[4].strip() == "[/] \\[b]"


def test_line_breaks_in_names_do_not_break_the_table():
    row = dataclasses.replace(BAD, leaf="two\nlines", diagnosis="over\n  here")
    lines = render(Report("f\ng", "FAIL", rows=(row,))).splitlines()
    assert lines[0] == "FAIL  f g"
    assert "two lines" in lines[3]
    assert lines[4] == " " * 8 + "over here"
    assert len(lines) == 7


def test_numbers_of_numpy():
    row = dataclasses.replace(GOOD, index=(np.int64(2),), error=np.float32(1.26e-7), rho=np.float64(0.98765))
    assert render(Report("f", "PASS", rows=(row,))).splitlines()[3].split()[3:6] == ["1.3e-07", "1.2e-07", "0.99"]


def test_many_survivors():
    lines = render(Report("f", "FAIL", control=Control({}, tuple(f"mutant {i}" for i in range(25))))).splitlines()
    assert lines[2] == "control: 0 of 25 mutants killed"
    assert lines[-2:] == ["    mutant 19", "    and 5 more"]


def test_contracts_none_of_which_passes():
    lines = render(Report("f", "FAIL", contracts=(Contract("zero", "FAIL"), Contract("jit", "INCONCLUSIVE", "slow"))))
    assert lines.splitlines()[2:] == ["contracts: 0 of 2 passed", "  FAIL  zero", "  INCONCLUSIVE  jit: slow"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.234e-7, "1.2e-07"),
        (0.0, "0"),
        (-0.0, "0"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "NaN"),
        (1, "1.0e+00"),
    ],
)
def test_figure(number, text):
    assert figure(number) == text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, ""),
        ({"a": None, "b": "x  y\nz"}, "a=None, b=x y z"),
        ({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}]}, "a=(b=(c=1)), d=(1, e=2)"),
    ],
)
def test_inline(settings, text):
    assert inline(settings) == text
