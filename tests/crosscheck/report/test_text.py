"""The report as text, to the letter."""

import dataclasses
import math

import numpy as np
import pytest

from handgrad.crosscheck.report.report import Contract, Control, Report, Row
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
    by_hand="-0.4938",
    by_autodiff="-0.2469",
    by_float64="-0.2469",
    by_differences="-0.2469",
    bad=1.0,
    diagnosis="2 × too large",
)
GOOD = Row("b", "PASS", (3,), "float32", math.nan, 0.0, 1.2e-7, math.inf, (2,), "1", "1", "1", "-", 0.0)
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
)
WHOLE = """\
FAIL  softmax_backward: dX is 2 × too large
culprit: hand

status leaf array              ρ   error     at tolerance by hand autodiff float64 differences bad %   power
FAIL   X    float64[4,3] 4.5e+15 1.0e+00 (3, 1)   1.2e-15 -0.4938  -0.2469 -0.2469     -0.2469   100 2.1e-15
       2 × too large
PASS   b    float32[3]         -       0   (2,)   1.2e-07       1        1       1           -     0       ∞

kink: X stands on relu's kink at (0, 3).
contracts: 2 of 3 kept: linear, zero; 1 skipped: vmap (no batch)
  FAIL  dtype kept: float32 came out
control: 9 of 11 mutants killed (2 more compute the same numbers); survived:
  X: × 1.000000001
  X[0]: [bold]off[/bold]
note: Two draws agree.
settings: seed=0, limits=(inf, 0.001), versions=(jax=0.10.2, numpy=2.4)
reproduce: check_rule(f, b,  *example(17))"""
SPLIT = """\
status leaf array              ρ   error     at tolerance bad %   power
FAIL   X    float64[4,3] 4.5e+15 1.0e+00 (3, 1)   1.2e-15   100 2.1e-15
       2 × too large
PASS   b    float32[3]         -       0   (2,)   1.2e-07     0       ∞

leaf      at  by hand  autodiff  float64  differences
X     (3, 1)  -0.4938   -0.2469  -0.2469      -0.2469
b       (2,)        1         1        1            -"""


def test_the_whole():
    assert render(REPORT, 110) == WHOLE


def test_wide_enough_for_wider_gaps():
    lines = render(REPORT).splitlines()
    assert lines[3] == (
        "status  leaf  array               ρ    error      at  tolerance  by hand  autodiff  float64  differences"
        "  bad %    power"
    )
    assert lines[5] == "        2 × too large"
    assert max(map(len, lines)) <= 120


def test_values_stand_apart_where_one_table_is_too_wide():
    assert "\n".join(render(REPORT, 75).splitlines()[3:11]) == SPLIT


def test_a_pass_is_short():
    report = Report("f", "PASS", rows=(GOOD,), contracts=KEPT, control=Control({"scale": 20, "sign": 3}))
    first, *_, contracts, control = lines = render(report).splitlines()
    assert len(lines) == 7
    assert first == "PASS  f"
    assert (contracts, control) == ("contracts: 2 kept: linear, zero", "control: 23 of 23 mutants killed")


def test_nothing_but_a_verdict():
    assert render(Report("f", "PASS")) == "PASS  f"
    assert render(Report("f", "INVALID", "it returns None")) == "INVALID  f: it returns None"


def test_the_order_of_rows_is_kept():
    rows = tuple(dataclasses.replace(GOOD, leaf=leaf) for leaf in ("z", "a", "m"))
    lines = render(Report("f", "PASS", rows=rows)).splitlines()
    assert [line.split()[1] for line in lines[3:6]] == ["z", "a", "m"]


def test_long_names_are_folded_and_nothing_is_lost():
    name = "blocks.attention.query." * 6 + "W"
    rows = (dataclasses.replace(BAD, leaf=name, by_hand="-0.49382715604938271"), GOOD)
    lines = render(Report("f", "FAIL", rows=rows)).splitlines()
    assert max(map(len, lines)) <= 120
    head, below = lines[3:6], lines.index("       2 × too large")
    assert head[0].startswith("FAIL   blocks.attention.query.")
    assert lines[below + 1].startswith("PASS   b ")
    pieces = [line[7:].split()[0] for line in lines[3:below]]
    assert "".join(pieces) == name
    assert "-0.49382715604938271" in "\n".join(lines)


def test_sentences_are_whole_lines_however_long():
    long = " ".join(["word"] * 100)
    row = dataclasses.replace(BAD, diagnosis="sign", reason=long)
    report = Report("f", "FAIL", long, rows=(row,), kinks=(long,), notes=(long,), reproduce=f"f({long!r})")
    lines = render(report, 110).splitlines()
    assert {f"FAIL  f: {long}", f"       sign; {long}", f"kink: {long}", f"note: {long}"} <= set(lines)
    assert lines[-1] == f"reproduce: f('{long}')"


def test_names_are_taken_to_the_letter():
    row = dataclasses.replace(BAD, leaf="[red]W[0]:smile:", by_hand="[1+2j]", diagnosis="[/] \\[b]")
    lines = render(Report("[b]f", "FAIL", rows=(row,)), 130).splitlines()
    assert lines[0] == "FAIL  [b]f"
    assert lines[3].split()[1] == "[red]W[0]:smile:"
    assert "[1+2j]" in lines[3]
    assert lines[4].strip() == "[/] \\[b]"


def test_line_breaks_in_names_do_not_break_the_table():
    row = dataclasses.replace(BAD, leaf="two\nlines", diagnosis="over\n  here")
    lines = render(Report("f\ng", "FAIL", rows=(row,))).splitlines()
    assert lines[0] == "FAIL  f g"
    assert "two lines" in lines[3]
    assert lines[4] == "       over here"
    assert len(lines) == 5


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_the_same_wherever_it_runs(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert render(REPORT, 110) == WHOLE


def test_the_same_in_a_notebook(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert render(REPORT, 110) == WHOLE


def test_numbers_of_numpy():
    row = dataclasses.replace(GOOD, index=(np.int64(2),), error=np.float32(1.26e-7), rho=np.float64(0.98765))
    assert render(Report("f", "PASS", rows=(row,))).splitlines()[3].split()[3:6] == ["0.988", "1.3e-07", "(2,)"]


def test_many_survivors():
    lines = render(Report("f", "FAIL", control=Control({}, tuple(f"mutant {i}" for i in range(25))))).splitlines()
    assert lines[2] == "control: 0 of 25 mutants killed; survived:"
    assert lines[-2:] == ["  mutant 19", "  and 5 more"]


def test_contracts_that_none_keeps():
    lines = render(Report("f", "FAIL", contracts=(Contract("zero", "FAIL"), Contract("jit", "INCONCLUSIVE", "slow"))))
    assert lines.splitlines()[2:] == ["contracts: 0 of 2 kept", "  FAIL  zero", "  INCONCLUSIVE  jit: slow"]


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
