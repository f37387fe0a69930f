"""Every mutant is wrong in the one way that it says, and the control counts what a judge says of each."""

import ml_dtypes
import numpy as np
import pytest
from crosscheck.errors.arrays import normal

from handgrad.crosscheck.errors import Mutant, control, output_mutants
from handgrad.crosscheck.errors.catalogue import CATALOGUE
from handgrad.crosscheck.errors.error import nothing
from handgrad.crosscheck.errors.mutants import same_array

G = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, 0.5], [6.0, -0.25, 7.0]])


def draws(*leaves, count=2):
    """[draw][leaf]: each draw's leaves are another multiple."""
    return [[(leaf * factor).astype(leaf.dtype) for leaf in leaves] for factor in range(1, count + 1)]


def mutants_of(cotangents, batch=3, relative=None, values=None):
    names = "XWVU"[: len(cotangents[0])]
    values = normal(*[leaf.shape for leaf in cotangents[0]], seed=1) if values is None else values
    return list(output_mutants(cotangents, names, values, {"batch": batch} if batch else {}, relative))


# Errors that need what a mutant isn't told: the cotangents, or gradients for others.
UNTOLD = {"cotangent", "conjugate of the Jacobian", "another cotangent", "examples of a sum"}


def test_every_error_of_the_catalogue_makes_mutants():
    real, complex_ = draws(*normal((3, 3), (4, 4), (4, 4), (3, 5))), draws(*normal((3, 3), dtype=np.complex128))
    values = [np.where(np.abs(X) < 0.3, 0, X) for X in normal((3, 3), (4, 4), (4, 4), (3, 5), seed=1)]
    due = {error.kind for error in CATALOGUE if error.make is not nothing} - UNTOLD
    several = {"swapped leaves", "scale of every leaf", "sign of every leaf"}
    made = [*mutants_of(real, batch=4, values=values), *mutants_of(complex_)]
    assert {mutant.kind for mutant in made} == due | several
    small = mutants_of(real, batch=4, relative=1e-9, values=values) + mutants_of(complex_, relative=1e-9)
    assert due - {mutant.kind for mutant in small} == {"NaN", "infinity", "dtype", "missing broadcast reduction"}


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("1.01 × too large", 1.01 * G),
        ("sign flipped", -G),
        ("zero", 0 * G),
        ("sum instead of mean: factor 3 = batch", 3 * G),
        ("mean instead of sum: factor 1/3 = 1/batch", G / 3),
        ("off by a constant: 14", G + 14),
        ("absolute value", [[1, 2, 3], [4, 5, 0.5], [6, 0.25, 7]]),
        ("negative elements set to zero", [[1, 0, 3], [0, 5, 0.5], [6, 0, 7]]),
        ("squared", G * G),
        ("right but for element (2, 2): zero there", [[1, -2, 3], [-4, 5, 0.5], [6, -0.25, 0]]),
        ("NaN in 1 of 9 elements (element (2, 2))", [[1, -2, 3], [-4, 5, 0.5], [6, -0.25, np.nan]]),
        ("elements (2, 0) and (2, 2) exchanged", [[1, -2, 3], [-4, 5, 0.5], [7, -0.25, 6]]),
        ("right but for column 2: 2 × too large there", [[1, -2, 6], [-4, 5, 1], [6, -0.25, 14]]),
        ("examples permuted: rolled by 1", [[6, -0.25, 7], [1, -2, 3], [-4, 5, 0.5]]),
        ("axis 1 reversed", [[3, -2, 1], [0.5, 5, -4], [7, -0.25, 6]]),
        ("shifted by -1 along axis 1, zero-filled", [[-2, 3, 0], [5, 0.5, 0], [-0.25, 7, 0]]),
        ("all elements in reverse order", [[7, -0.25, 6], [0.5, 5, -4], [3, -2, 1]]),
        ("transposed", G.T),
        ("cumulative sum along axis 1 from its end", [[2, 1, 3], [1.5, 5.5, 0.5], [12.75, 6.75, 7]]),
        ("right on and above the diagonal only: zero elsewhere", [[1, -2, 3], [0, 5, 0.5], [0, 0, 7]]),
        ("right on the diagonal only: zero elsewhere", [[1, 0, 0], [0, 5, 0], [0, 0, 7]]),
        ("right for example 2 only: zero elsewhere", [[0, 0, 0], [0, 0, 0], [6, -0.25, 7]]),
        ("right but for example 2: zero there", [[1, -2, 3], [-4, 5, 0.5], [0, 0, 0]]),
        ("summed over axis 0 and repeated", [[3, 2.75, 10.5]] * 3),
        ("clipped to ±7", [[1, -2, 3], [-4, 5, 0.5], [6, -0.25, 7]]),
        ("multiplied by the argument", [[-1, -2, 3], [4, 5, 0.5], [-6, -0.25, 7]]),
        ("right but for elements where x < 0: zero there", [[0, -2, 3], [0, 5, 0.5], [0, -0.25, 7]]),
    ],
)
def test_numbers(description, expected):
    values = [np.array([[-1.0, 1.0, 1.0]] * 3)]
    (mutant,) = [m for m in mutants_of(draws(G), values=values) if m.description == f"X: {description}"]
    assert mutant.leaf == "X"
    np.testing.assert_allclose(mutant.cotangents[0][0], expected, rtol=1e-15)


def test_examples_permuted_moves_every_example():
    rows = np.repeat(np.arange(5.0)[:, None], 2, axis=1)
    (mutant,) = [mutant for mutant in mutants_of(draws(rows), batch=5) if mutant.kind == "examples permuted"]
    found = mutant.cotangents[0][0][:, 0]
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert (found != np.arange(5)).all()


def test_other_shapes_and_dtypes():
    by_kind = {mutant.kind: mutant.cotangents[1][0] for mutant in mutants_of(draws(*normal((2,))))}
    assert by_kind["missing broadcast reduction"].shape == (3, 2)
    np.testing.assert_allclose(by_kind["missing broadcast reduction"].sum(0), 2 * normal((2,))[0])
    assert by_kind["dtype"].dtype == np.float32
    assert by_kind["rounded"].dtype == np.float64


def test_swapped_leaves():
    X, W = normal((2, 2), (2, 2))
    mutants = mutants_of(draws(X, W))
    (swapped,) = [mutant for mutant in mutants if mutant.kind == "swapped leaves"]
    assert (swapped.leaf, swapped.description) == ("", "X and W exchanged")
    np.testing.assert_array_equal(swapped.cotangents[1], [2 * W, 2 * X])
    (other,) = [mutant for mutant in mutants if mutant.kind == "another leaf's"]
    assert (other.leaf, other.description) == ("X", "X: the gradient of W")
    np.testing.assert_array_equal(other.cotangents[0], [W, W])


def test_of_the_cotangent():
    by_kind = {mutant.kind: [c[0] for c in mutant.cotangents] for mutant in mutants_of(draws(G, count=3))}
    np.testing.assert_array_equal(by_kind["ignores the cotangent"], [G, G, G])
    np.testing.assert_array_equal(by_kind["stale cotangent"], [3 * G, G, 2 * G])
    assert "stale cotangent" not in {mutant.kind for mutant in mutants_of(draws(G, count=1))}


@pytest.mark.parametrize("relative", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_relative_errors_are_as_large_as_they_say(relative, dtype):
    cotangents = draws(*normal((3, 3), (4, 4), (4, 4), (5,), dtype=dtype))
    mutants = mutants_of(cotangents, relative=relative)
    largest = [max(np.abs(leaves[i]).max() for leaves in cotangents) for i in range(4)]
    for mutant in mutants:
        errors = [
            max(np.abs(m[i] - g[i]).max() for m, g in zip(mutant.cotangents, cotangents, strict=True)) / largest[i]
            for i in range(4)
        ]
        wrong = [i for i in range(4) if errors[i] != 0]
        assert wrong, mutant.description
        assert [errors[i] for i in wrong] == pytest.approx([relative] * len(wrong), rel=1e-5), mutant.description
        assert mutant.leaf == ("XWVU"[wrong[0]] if len(wrong) == 1 else "")
    assert len(mutants) > 150


def test_relative_descriptions():
    descriptions = [mutant.description for mutant in mutants_of(draws(G), relative=1e-9)]
    assert {"X: 2 × too large, by 1e-09", "X: transposed, by 1e-09"} <= set(descriptions)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.complex128])
def test_any_precision(dtype):
    cotangents = draws(*normal((3, 4), (4,), dtype=dtype))
    before = [[leaf.copy() for leaf in leaves] for leaves in cotangents]
    mutants = mutants_of(cotangents)
    assert len({mutant.kind for mutant in mutants}) > 25
    for mutant in mutants:
        for leaves in mutant.cotangents:
            if mutant.kind not in ("dtype", "missing broadcast reduction"):
                assert [(leaf.shape, leaf.dtype) for leaf in leaves] == [((3, 4), dtype), ((4,), dtype)]
    for leaves, old in zip(cotangents, before, strict=True):
        for leaf, was in zip(leaves, old, strict=True):
            np.testing.assert_array_equal(leaf, was)


def test_gross_is_more_than_rounding():
    """In bfloat16, a tenth of the largest is 51 unit roundoffs of it."""
    for dtype, expected in ((np.float64, 2), (ml_dtypes.bfloat16, 1)):
        kinds = [mutant.kind for mutant in mutants_of(draws(*normal((3, 4), dtype=dtype)))]
        assert kinds.count("constant offset") == expected


def test_integers_and_empty_leaves_pass_through():
    integers, empty, X = np.arange(3), np.zeros((0, 3)), normal((2, 2))[0]
    mutants = mutants_of([[integers, empty, X]])
    assert {mutant.leaf for mutant in mutants} == {"V"}
    assert all(mutant.cotangents[0][0] is integers and mutant.cotangents[0][1] is empty for mutant in mutants)
    assert mutants_of([[integers, empty]]) == []


def test_what_is_not_finite_stays():
    X = np.array([0.9, np.inf, -2.0, np.nan])
    mutants = [
        mutant
        for mutant in mutants_of([[X]], relative=1e-3, values=[np.ones(4)])
        if mutant.kind not in ("one element", "normalized", "times the argument")
    ]
    assert len(mutants) > 15
    for mutant in mutants:
        assert mutant.cotangents[0][0][1] == np.inf
        assert np.isnan(mutant.cotangents[0][0][3])
        assert np.nanmax(np.abs(mutant.cotangents[0][0][[0, 2]] - X[[0, 2]])) == pytest.approx(2e-3), mutant


def test_nothing_finite_at_all():
    for relative in (None, 1e-3):
        for value in (np.nan, np.inf):
            assert len(mutants_of([[np.full((2, 2), value)]], relative=relative)) > 10


def test_the_same_mutants_every_time():
    one, two = mutants_of(draws(G)), mutants_of(draws(G))
    for a, b in zip(one, two, strict=True):
        assert a[:3] == b[:3]
        np.testing.assert_array_equal(a.cotangents, b.cotangents)


def test_as_many_names_as_leaves():
    with pytest.raises(ValueError, match="zip"):
        list(output_mutants([[G]], ["X"], [], None))
    with pytest.raises(ValueError, match=r"1 names for \[2\] leaves"):
        list(output_mutants([[G, G]], ["X"], [G], None))


def test_control_counts():
    cotangents = [[G]]
    seen = []

    def judge(found):
        seen.append(found)
        return np.abs(found[0][0] - G).max() > 0.5

    mutants = [
        Mutant("scale", "X", "X: × 2", [[2 * G]]),
        Mutant("scale", "X", "X: × 3", [[3 * G]]),
        Mutant("sign", "X", "X: sign flipped", [[-G]]),
        Mutant("offset", "X", "X: + 0.25", [[G + 0.25]]),
        Mutant("offset", "X", "X: + 1e-16", [[G + 1e-16]]),
        Mutant("stale", "", "nothing changed", [[G + 1]], equivalent=True),
    ]
    report = control(judge, cotangents, mutants)
    assert report.killed == {"scale": 2, "sign": 1}
    assert report.survived == ("X: + 0.25",)
    assert report.equivalent == 2
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("array", "reference", "expected"),
    [
        (1.0 + 16 * 2.0**-53, 1.0, True),
        (1.0 + 18 * 2.0**-53, 1.0, False),
        ([1024.0, 1024 * 16 * 2.0**-53], [1024.0, 0.0], True),
        ([1024.0, 1024 * 17 * 2.0**-53], [1024.0, 0.0], False),
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [1.0, np.nan], False),
        ([np.inf, 1.0], [-np.inf, 1.0], False),
        ([1.0], [[1.0]], False),
        (np.float32(1), 1.0, False),
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 3], False),
        ([], [], True),
        ([0.0], [-0.0], True),
        ([1e-300], [0.0], False),
    ],
)
def test_equivalent_within_sixteen_roundoffs(array, reference, expected):
    assert same_array(np.asarray(array), np.asarray(reference)) is expected


def test_a_symmetric_gradient_is_its_own_transpose():
    report = control(lambda found: True, draws(G + G.T), mutants_of(draws(G + G.T), batch=None))
    assert "transposed" not in report.killed
    assert report.equivalent >= 1
    assert report.survived == ()


@pytest.mark.parametrize("relative", [None, 1e-9])
def test_a_sharp_judge_kills_all(relative):
    cotangents = draws(*normal((3, 4), (4, 4), (4,)))
    mutants = mutants_of(cotangents, relative=relative)

    def judge(found):
        pairs = [pair for a, b in zip(found, cotangents, strict=True) for pair in zip(a, b, strict=True)]
        if any(a.shape != b.shape for a, b in pairs):
            return True
        return not all(np.abs(a - b).max() <= 1e-11 * np.abs(b).max() for a, b in pairs)

    report = control(judge, cotangents, mutants)
    assert report.survived == ()
    assert sum(report.killed.values()) == len(mutants) - report.equivalent > 100
    assert report.equivalent <= 1
