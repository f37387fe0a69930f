"""Judgment: pure NumPy, elementwise, the leaf that is wrong and no other."""

import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck.errors import output_mutants, same
from handgrad.crosscheck.evidence.collect import collect
from handgrad.crosscheck.evidence.oracle import Findings
from handgrad.crosscheck.report.report import Row
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.programs import Programs
from handgrad.crosscheck.verdict import judge
from handgrad.crosscheck.verdict.verdict import decide

rng = np.random.default_rng(0)
ARGS = tuple(rng.standard_normal(shape) for shape in ((5, 4), (4, 3), (3,)))


def forward(X, W, b):
    return jnp.tanh(X @ W + b[None]), (X, W, b)


def backward(residuals, dY):
    X, W, b = residuals
    D = dY * (1 - jnp.tanh(X @ W + b[None]) ** 2)
    return D @ W.T, X.T @ D, D.sum(0)


@pytest.fixture(scope="module", params=[np.float64, np.float32, jnp.bfloat16])
def evidence(request):
    args = [a.astype(request.param) for a in ARGS]
    return collect(Programs(from_rule(None, forward, backward, args, None)), args)


@pytest.fixture(scope="module")
def exact():
    return collect(Programs(from_rule(None, forward, backward, ARGS, None)), list(ARGS))


def changed(evidence, leaf, change):
    return [[change(a) if i == leaf else a for i, a in enumerate(draw)] for draw in evidence.hand]


def one_element(index, size):
    def change(a):
        a = np.array(a)
        a[index] += size
        return a

    return change


def test_the_right_one_passes(evidence):
    assert judge.fails(evidence, evidence.hand) == []
    assert all(row.status == "PASS" and row.rho <= 3 for row in judge.rows(evidence, evidence.hand))


@pytest.mark.parametrize("leaf", range(3))
@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0, -1.0, 1.2])
def test_a_factor_in_one_leaf(evidence, leaf, factor):
    mutant = changed(evidence, leaf, lambda a: (a.astype(float) * factor).astype(a.dtype))
    assert judge.fails(evidence, mutant) == ["XWb"[leaf]]
    first, *others = judge.rows(evidence, mutant)
    assert (first.leaf, first.status) == ("XWb"[leaf], "FAIL")
    assert first.error == pytest.approx(abs(factor - 1), abs=0.05)
    assert {row.status for row in others} == {"PASS"}


def test_one_element_by_a_billionth(exact):
    for leaf, index in ((0, (3, 2)), (1, (0, 1)), (2, (2,))):
        size = 1e-9 * exact.wanted[leaf].scale
        row = judge.rows(exact, changed(exact, leaf, one_element(index, size)))[0]
        assert (row.leaf, row.status, row.index) == ("XWb"[leaf], "FAIL", index)
        assert row.error == pytest.approx(1e-9, rel=1e-3)
        assert row.bad == 1 / exact.wanted[leaf].value.size
        heat = np.array(row.heat)
        assert np.argmax(heat) == np.ravel_multi_index(index, exact.wanted[leaf].value.shape)


def test_an_error_in_one_draw_only(exact):
    mutant = [list(draw) for draw in exact.hand]
    mutant[2][1] = one_element((1, 1), 1e-9)(mutant[2][1])
    row = judge.rows(exact, mutant)[0]
    assert (row.leaf, row.status, row.draw, row.index) == ("W", "FAIL", 2, (1, 1))


def test_worst_first(exact):
    mutant = changed(exact, 1, lambda a: a * 1.5)
    mutant = [[draw[0] * (1 + 1e-9), draw[1], draw[2]] for draw in mutant]
    assert [row.leaf for row in judge.rows(exact, mutant)] == ["W", "X", "b"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(exact, value):
    row = judge.rows(exact, changed(exact, 1, one_element((2, 0), value)))[0]
    assert (row.leaf, row.status, row.index) == ("W", "FAIL", (2, 0))
    assert np.isnan(row.error)
    np.testing.assert_equal(row.by_hand, value)


def test_shape_and_dtype(exact):
    row = judge.rows(exact, changed(exact, 2, lambda a: a[None]))[0]
    assert (row.status, row.came, row.shape, row.by_hand) == ("FAIL", (1, 3), (3,), None)
    row = judge.rows(exact, changed(exact, 2, lambda a: a.astype(np.float32)))[0]
    assert (row.leaf, row.status) == ("b", "FAIL")
    assert judge.fails(exact, changed(exact, 2, lambda a: a.astype(np.float32))) == ["b"]


def test_right_numbers_of_another_dtype():
    """Numbers that float32 holds exactly: still another dtype than the argument's."""
    args = (np.array([[1.0, 2.0], [3.0, 5.0]]),)
    evidence = collect(
        Programs(from_rule(None, lambda X: (2 * X, ()), lambda _, dY: (2 * dY,), args, None)), list(args)
    )
    dYs = [[np.round(dY[0])] for dY in evidence.dYs]
    known = replace(evidence.wanted[0], truth=2 * np.stack([dY[0] for dY in dYs]))
    evidence = replace(evidence, dYs=dYs, wanted=[known])
    assert judge.fails(evidence, [[2 * dY[0]] for dY in dYs]) == []
    assert judge.fails(evidence, [[(2 * dY[0]).astype(np.float32)] for dY in dYs]) == ["X"]


def test_fails_and_rows_agree_on_every_mutant(exact):
    part = exact.random_part()
    names, values = part.programs.problem.wanted_names, [leaf.value for leaf in part.wanted]
    count = 0
    for relative in (None, 1e-9):
        for mutant in output_mutants(part.hand, names, values, judge.sizes(part), relative):
            failing = judge.fails(part, mutant.cotangents)
            rows = judge.rows(part, mutant.cotangents, explain=False)
            assert sorted(failing) == sorted(row.leaf for row in rows if row.status == "FAIL"), mutant.description
            if not same(mutant.cotangents, part.hand):
                assert failing, mutant.description
                assert not mutant.leaf or mutant.leaf in failing, mutant.description
            count += 1
    assert count > 200


def test_a_thousand_judgments_a_second(exact):
    part = exact.random_part()
    mutant = changed(part, 0, lambda a: a * 1.5)
    start = time.perf_counter()
    for _ in range(500):
        judge.fails(part, mutant)
    assert time.perf_counter() - start < 2.5


def test_slack_excuses_and_never_certifies(exact):
    near = changed(exact, 0, one_element((0, 0), 1e-6))
    loose = replace(exact, atol=1e-3)
    row = next(row for row in judge.rows(loose, near) if row.leaf == "X")
    assert (row.status, row.reason) == ("INCONCLUSIVE", "within atol = 0.001: excused, but nothing is shown")
    assert judge.fails(replace(exact, atol=1e-8), near) == ["X"]


@pytest.mark.parametrize(
    ("dtype", "f", "scale"), [(np.float16, jnp.sin, 20.0), (jnp.bfloat16, lambda x: jnp.exp(-x), 40.0)]
)
@pytest.mark.parametrize("factor", [0.0, 0.5, 0.75, 1.25, 1.5, 2.0])
def test_a_wrong_factor_is_no_rounding(dtype, f, scale, factor):
    """Low precision and large inputs: a wrong gradient's own scatter must not widen the tolerance that it's held to.

    By autodiff alone, this run sees an error of 24 % at the worst.
    """
    x = (scale * np.random.default_rng(0).uniform(0.5, 1.5, (6, 8))).astype(dtype)

    def backward(x, dY):
        return (jnp.asarray(factor, x.dtype) * jax.vjp(f, x)[1](dY)[0],)

    right = collect(Programs(from_rule(None, lambda x: (f(x), x), lambda x, dY: jax.vjp(f, x)[1](dY), (x,), None)), [x])
    assert right.wanted[0].power < 0.245
    wrong = collect(Programs(from_rule(None, lambda x: (f(x), x), backward, (x,), None)), [x])
    assert judge.fails(wrong, wrong.hand) == ["x"], wrong.wanted[0].power


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_small_leaf_beside_a_large_output_is_no_excuse(dtype):
    """Y is 1e12 times larger than b, yet db = Σ dY is as sure as can be: a missing db is wrong, not "saturated"."""
    args = [(1e6 * ARGS[0]).astype(dtype), (1e12 * ARGS[1]).astype(dtype), ARGS[2].astype(dtype)]
    p = Programs(
        from_rule(
            None, lambda X, W, b: (X @ W + b[None], (X, W)), lambda r, d: (d @ r[1].T, r[0].T @ d, d.sum(0)), args, None
        )
    )
    evidence = collect(p, args)
    assert evidence.wanted[2].power < 1e-5
    assert judge.fails(evidence, changed(evidence, 2, np.zeros_like)) == ["b"]


def test_the_heat_of_a_large_leaf_is_folded():
    x = np.random.default_rng(0).standard_normal((3, 100, 130))
    evidence = collect(Programs(from_rule(None, lambda x: (2 * x, ()), lambda _, d: (2 * d,), (x,), None)), [x])
    (row,) = judge.rows(evidence, changed(evidence, 0, one_element((1, 50, 129), 1.0)))
    heat = np.array(row.heat)
    assert heat.shape == (64, 64)
    assert row.index == (1, 50, 129)
    assert (heat > 1).sum() == 1
    assert heat[:, 63].max() == heat.max()


def test_sizes_that_a_factor_may_be(exact):
    found = judge.sizes(exact)
    assert (found["batch"], found["elements of the output"]) == (5, 15)
    assert set(found.values()) == {5, 15, 3, 4}, "X and W have an axis of 4"


@pytest.mark.parametrize(
    ("diagnosis", "shape", "headline"),
    [
        ("examples weighted 1, 1, 1, 1", (3, 2), "off by 0.5 times its largest element; rounding explains 1e-15"),
        ("example 3 weighted 2 in the sum over the batch", (3, 2), "example 3 weighted 2 in the sum over the batch"),
        ("29.4278 × too large", (1, 1), "off by 0.5 times its largest element; rounding explains 1e-15"),
        ("29.4278 × too large", (3, 2), "29.4278 × too large"),
        ("2 × too large", (), "2 × too large"),
        ("", (3, 2), "off by 0.5 times its largest element; rounding explains 1e-15"),
    ],
)
def test_a_headline_says_how_far_off_where_a_diagnosis_says_less(exact, diagnosis, shape, headline):
    row = Row("W", "FAIL", shape, "float64", 1.0, 0.5, 1e-15, 1e-15, (0,), 1.0, 2.0, 2.0, None, 1.0, diagnosis)
    assert decide(exact, [row], [], Findings(), []).reason == f"W: {headline}"
