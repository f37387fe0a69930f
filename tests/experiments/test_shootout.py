"""The checker's own benchmark, on a few rules: nothing broken gets through, nothing right is failed."""

import json

import checker_shootout
import pytest
from checker_shootout import Options
from shootout import alarms, kills, others, signatures, subjects

from handgrad import InputError
from handgrad.cases import CASES
from handgrad.crosscheck.errors import Mutant

pytestmark = pytest.mark.xdist_group("shootout")  # one process makes the figures

# Of right gradients each kind once and each dtype once; of what the others see, float64, which they are made for.
ONCE = {"rule": "float32", "ties": "bfloat16", "networks": "float64", "on_mutants": "float64", "on_right": "float64"}


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    def few(make):
        return lambda options: (
            (function, given) for function, given in make(options) if ONCE.get(function.__name__, given[1]) == given[1]
        )

    parts = {part: (few(make), summary) for part, (make, summary) in checker_shootout.PARTS.items()}
    out = tmp_path_factory.mktemp("shootout") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checker_shootout, "PARTS", parts)
        found = checker_shootout.run(Options(quick=True, out=out), progress=False)
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    return found


def test_right_gradients_are_put_to_it_in_every_dtype():
    tasks = [(function.__name__, given[1]) for function, given in checker_shootout.alarm_tasks(Options(quick=True))]
    assert tasks == [(kind, dtype) for dtype in alarms.DTYPES for kind in ("rule", "ties", "networks")]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_mutant_is_killed_and_the_right_leaf_named(figures, dtype):
    of = figures["kills"][dtype]
    assert of["killed"] == of["mutants"] > 400
    assert of["survivors"] == []
    assert of["right leaf"] == of["mutants"]
    assert of["misnamed"] == []
    assert len(of["kinds"]) >= 60
    assert of["right gradients failed"] == []
    levels = {"gross", f"{kills.BAR[dtype]:g}", "program"}
    assert set(of["levels"]) == levels
    assert all(level["mutants"] > 30 for level in of["levels"].values())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_diagnoses_are_right(figures, dtype):
    said = figures["kills"][dtype]["signatures"]
    assert said["right"] + said["wrong"] > 80
    assert said["right"] >= 0.97 * (said["right"] + said["wrong"])


@pytest.mark.slow
def test_no_right_gradient_is_failed(figures):
    found = figures["alarms"]
    assert found["false alarms"] == []
    assert found["checks"] == sum(found["verdicts"].values()) == 8
    assert found["verdicts"]["PASS"] >= 7
    assert set(found["by kind"]) == {"rules float32", "ties bfloat16", "networks float64"}


@pytest.mark.slow
def test_the_others_are_put_to_the_same(figures):
    of = {name: score for name, score in figures["others"].items() if name not in ("made", "wall seconds")}
    assert {"handgrad", "check_grads", "check_vjp"} <= set(of)
    assert len(of) == (5 if others.torch else 3)
    for name in ("handgrad", "check_grads", "check_vjp"):
        seen = of[name]["mutants"]
        assert [seen[level]["seen"] for level in seen] == [c["seen"] for c in of["handgrad"]["mutants"].values()]
        assert of[name]["right gradients"]["float64 scale 1"] == {"checks": 1, "false alarms": 0, "inconclusive": 0}
    assert all(c["killed"] == c["seen"] for c in of["handgrad"]["mutants"].values())
    # With their own tolerances, a mutant that is off by 1e-9 is none of theirs; a gross one is.
    assert of["check_vjp"]["mutants"]["float64 1e-09"]["killed"] == 0
    assert (
        of["check_vjp"]["mutants"]["float64 gross"]["killed"]
        > 0.9 * of["check_vjp"]["mutants"]["float64 gross"]["seen"]
    )


def test_a_checker_that_fails_right_gradients_tells_nothing_apart():
    score = others.Score()
    score.saw(("float32", "gross"), "sign", "GradcheckError: not for float32", content=False)
    score.saw(("float32", "gross"), "scale", "", content=False)
    at = "float32", "gross"
    assert (score.seen[at], score.killed[at], score.told[at]) == (2, 1, 0)
    assert score.missed[*at, "scale"] == 1


@pytest.mark.parametrize(
    ("words", "right", "wrong"),
    [
        ("half of what it should be", "half of what it should be", "2 × too large"),
        ("2 × too large and sign flipped", "2 × too large and sign flipped", "2 × too large"),
        (
            "right but for elements where x < 0: zero there",
            "right but for element (0, 2), where x < 0: zero there",
            "right but for element (0, 2): zero there",
        ),
        (
            "right on the diagonal only: zero elsewhere",
            "right on the diagonal only: zero elsewhere",
            "right but for column 1: zero there",
        ),
    ],
)
def test_a_diagnosis_is_right_in_the_catalogues_words(words, right, wrong):
    mutant = Mutant("any", "X", f"X: {words}", [])
    assert signatures.says(right, mutant)
    assert not signatures.says(wrong, mutant)


def test_every_rule_of_the_library_has_a_mutant():
    rules = {case.op for case in CASES if not case.tests_only and not case.estimator}
    assert rules <= {subjects.subject(name).op for name in subjects.one_each()}


def test_parts_keep_what_the_file_has_of_others(tmp_path, monkeypatch):
    monkeypatch.setitem(checker_shootout.PARTS, "alarms", (lambda options: iter(()), lambda results: {"verdicts": {}}))
    monkeypatch.setitem(checker_shootout.TABLES, "alarms", lambda figures: "")
    out = tmp_path / "figures.json"
    out.write_text('{"kills": 1}')
    found = checker_shootout.run(Options(quick=True, parts=("alarms",), out=out), progress=False)
    assert found["kills"] == 1
    assert set(json.loads(out.read_text())) == {"kills", "alarms"}


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="draws"):
        checker_shootout.run(Options(draws=0, out=tmp_path / "figures.json"))
    (tmp_path / "words.json").write_text("no JSON")
    with pytest.raises(InputError, match="out must be a JSON file that can be written"):
        checker_shootout.run(Options(out=tmp_path / "words.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "tiled_attention cross tile=2",
        "tiled_attention options causal=True window=3 softcap=2.0 scale=0.7 tile=3",
        "softmax_cross_entropy weighted label_smoothing=0.1 ignore_index=-100 z_loss=0.1 softcap=4.0",
        "matrix_exponential matrices",
    ],
)
def test_right_gradients_of_huge_inputs_are_no_false_alarms(name):
    """Saturated, where terms cancel to what the order of sums leaves; underflowing; beyond the range of squares."""
    assert alarms.rule(name, "float64", 2, (1e3, 1e6)).alarms == []
