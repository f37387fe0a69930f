"""A report comes back from JSON as it was, and says so where it can't."""

import dataclasses
import json
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from handgrad.crosscheck.report import report as module
from handgrad.crosscheck.report.report import SCHEMA, CheckFailed, Contract, Control, Repair, Report, Row

ROW = Row(
    leaf="params.0.W",
    status="FAIL",
    shape=(4, 3),
    dtype="complex64",
    rho=math.nan,
    error=math.inf,
    tolerance=1.1920929e-07,
    power=-math.inf,
    index=(3, 1),
    by_hand=math.nan,
    by_autodiff=math.inf,
    by_float64=1.5 + 2j,
    by_differences=None,
    bad=1 / 3,
    diagnosis="2 × too large",
    reason='a "quoted" line\nand another',
    heat=((0.1, math.nan), (math.inf, 5e-324)),
)
FULL = Report(
    name="softmax_backward",
    verdict="FAIL",
    reason="dX is 2 × too large",
    culprit="hand",
    rows=(ROW, dataclasses.replace(ROW, shape=(), index=(), heat=())),
    contracts=(Contract("linear in the cotangent", "PASS"), Contract("vmap", "SKIPPED", "no batch")),
    kinks=("X stands on relu's kink.",),
    control=Control({"scale": 4, "dropped leaf": 0}, ("W: × 1.000000001",), 2),
    notes=("one", "two"),
    settings={
        "seed": 0,
        "x64": True,
        "reference": None,
        "tolerance": math.nan,
        "limits": (-math.inf, math.inf, -0.0, 0.1),
        "nested": {"jax": "0.10.2", "shapes": ((4, 3), (), {"deep": (math.inf,)})},
    },
    reproduce="check_rule(f, b, *example(17))",
    repair=(Repair("mine.py", 41, "s = jnp.mean(P * dP, -1)", "a sum instead of the mean"), Repair("b.py", 1, "", "W")),
)


def same(one, two) -> bool:
    """Equal, of equal types all the way down, NaN being itself."""
    if type(one) is not type(two):
        return False
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, float):
        return repr(one) == repr(two)
    return one == two


@pytest.mark.parametrize("report", [FULL, Report("f", "PASS"), Report("f", "INVALID", control=Control())])
def test_there_and_back(report):
    back = Report.from_json(report.to_json())
    assert same(back, report)
    assert back.to_json() == report.to_json()


def test_same_would_see_a_difference():
    assert not same(dataclasses.replace(FULL, settings=FULL.settings | {"tolerance": 0.0}), FULL)
    assert not same(dataclasses.replace(FULL, rows=(dataclasses.replace(ROW, heat=((0.1, 0.2),)),)), FULL)


def test_json_is_of_the_standard():
    """NaN and infinities are strings, so that every reader can read it."""

    def refuse(constant):
        raise AssertionError(constant)

    written = json.loads(FULL.to_json(), parse_constant=refuse)
    assert written["schema"] == SCHEMA == "handgrad.crosscheck/1"
    row = written["rows"][0]
    assert (row["rho"], row["error"], row["power"], row["by_hand"]) == ("NaN", "Infinity", "-Infinity", "NaN")
    assert (row["by_autodiff"], row["by_float64"], row["by_differences"]) == ("Infinity", [1.5, 2.0], None)
    assert row["heat"] == [[0.1, "NaN"], ["Infinity", 5e-324]]
    assert written["control"] == {
        "killed": {"scale": 4, "dropped leaf": 0},
        "survived": ["W: × 1.000000001"],
        "equivalent": 2,
    }
    change = "a sum instead of the mean"
    assert written["repair"][0] == {"file": "mine.py", "line": 41, "source": FULL.repair[0].source, "change": change}


def test_what_json_has_no_type_for():
    settings = {
        "device": jax.devices()[0],
        "dtype": np.dtype("float32"),
        "eps": np.float32(0.5),
        "count": np.int64(3),
        "on": np.bool_(True),
        "array": np.array([1.0, np.nan]),
        "where": Path("a/b"),
        "complex": 1 + 2j,
        3: "three",
    }
    back = Report.from_json(Report("f", "PASS", settings=settings).to_json())
    assert str(back.settings.pop("array")) == "(1.0, nan)"
    assert back.settings == {
        "device": str(jax.devices()[0]),
        "dtype": "float32",
        "eps": 0.5,
        "count": 3,
        "on": True,
        "where": str(Path("a/b")),
        "complex": "(1+2j)",
        "3": "three",
    }


def test_numbers_of_numpy_in_a_row():
    row = dataclasses.replace(ROW, rho=np.float32(0.5), index=(np.int64(3), np.int64(1)), error=np.float64("nan"))
    (back,) = Report.from_json(Report("f", "FAIL", rows=(row,)).to_json()).rows
    assert (back.rho, back.index, str(back.error)) == (0.5, (3, 1), "nan")


def broken(*path, to) -> str:
    found = json.loads(FULL.to_json())
    *way, last = path
    place = found
    for step in way:
        place = place[step]
    place[last] = to
    return json.dumps(found)


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(FULL.to_json()).items() if key != name})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"text must be JSON, got '' \(Expecting value"),
        ("PASS  softmax", r"text must be JSON, got 'PASS  softmax' \(Expecting value"),
        ("[1, 2]", r"the schema must be 'handgrad\.crosscheck/1', got None"),
        ("{}", r"the schema must be 'handgrad\.crosscheck/1', got None"),
        (broken("schema", to="handgrad.crosscheck/2"), r"the schema must be .*/1', got 'handgrad\.crosscheck/2'"),
        (broken("schema", to=["x"]), r"the schema must be .*/1', got \['x'\]"),
        (without("verdict"), r"the field report\.verdict is missing"),
        (broken("rows", 0, "color", to="red"), r"the field report\.rows\.0\.color is unknown"),
        (
            broken("verdict", to="MAYBE"),
            r"report\.verdict must be one of PASS, FAIL, INCONCLUSIVE, INVALID, got 'MAYBE'",
        ),
        (broken("rows", 1, "status", to="INVALID"), r"report\.rows\.1\.status must be one of PASS, .*, got 'INVALID'"),
        (broken("rows", 0, "rho", to="large"), r"report\.rows\.0\.rho must be float, got 'large'"),
        (broken("rows", 0, "rho", to=True), r"report\.rows\.0\.rho must be float, got True"),
        (broken("rows", 0, "shape", 1, to=3.0), r"report\.rows\.0\.shape\.1 must be int, got 3\.0"),
        (broken("rows", to={}), r"report\.rows must be tuple, got \{\}"),
        (broken("rows", 0, to=[]), r"report\.rows\.0 must be Row, got \[\]"),
        (broken("control", to=3), r"report\.control must be Control, got 3"),
        (broken("control", "killed", "scale", to="4"), r"report\.control\.killed\.scale must be int, got '4'"),
        (broken("settings", to=None), r"report\.settings must be dict, got None"),
    ],
)
def test_what_is_no_report(text, sentence):
    with pytest.raises(ValueError, match=f"^Report.from_json: {sentence}"):
        Report.from_json(text)


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", "INVALID"])
def test_only_a_pass_passes(verdict):
    report = dataclasses.replace(FULL, verdict=verdict)
    assert not report.ok
    with pytest.raises(CheckFailed) as raised:
        report.raise_if_failed()
    assert str(raised.value) == str(report) == repr(report)
    assert str(report).startswith(f"{verdict}  softmax_backward: dX is 2 × too large\n")


def test_a_pass_raises_nothing():
    report = Report("f", "PASS")
    assert report.ok
    report.raise_if_failed()


def test_a_report_imports_no_renderer():
    assert not re.search(r"import.*(text|html)", Path(module.__file__).read_text())
    assert set(module.RENDERERS) == {"text", "html"}
