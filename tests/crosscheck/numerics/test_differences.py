"""Finite differences: right, honest about their error, and sure about what they stand on."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck.numerics.differences import JUMP, KINK, SILENT, SMOOTH, along, complex_step, coordinate


class Counted:
    """f as a primal of one output that counts its calls."""

    def __init__(self, f):
        self.f, self.calls = f, 0

    def __call__(self, leaves):
        self.calls += 1
        with np.errstate(all="ignore"):
            return [np.asarray(self.f(*leaves))]


def at(f, x):
    """slope, error, left, right, kind of f: (1,) -> (1,) at x, as numbers, and the number of calls."""
    primal = Counted(f)
    found = coordinate(primal, [np.array([float(x)])], 0, (0,))
    return (*(field[0].item() for field in found), primal.calls)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("f", "x", "exact", "digits"),
    [
        (np.sin, 1.0, np.cos(1.0), 1e-9),
        (np.sin, 1e5, np.cos(1e5), 1e-9),
        (np.sin, 1e-6, np.cos(1e-6), 1e-9),
        (np.log, 1e-30, 1e30, 1e-9),
        (np.sqrt, 1e-12, 0.5e6, 1e-9),
        (lambda x: 1 / x, 1e-20, -1e40, 1e-9),
        (lambda x: x**3, 1e100, 3e200, 1e-9),
        (np.exp, 300.0, np.exp(300.0), 1e-7),
        (lambda x: np.sin(1e4 * x), 1.0, 1e4 * np.cos(1e4), 1e-9),
        (lambda x: np.logaddexp(0, 1e9 * (x - 1)), 1.0, 5e8, 1e-9),
        (lambda x: 5 + np.sin(x), 1e-12, 1.0, 1e-9),
        (relu, 1e-9, 1.0, 1e-9),
        (lambda x: relu(x - 1), 1 + 1e-3, 1.0, 1e-9),
        (lambda x: relu(x - 1), 1 + 1e-9, 1.0, 1e-9),
        (lambda x: relu(x - 1) + np.sin(3 * x), 1 + 1e-9, 1 + 3 * np.cos(3.0), 1e-4),
        (sigmoid, 30.0, np.exp(-30.0), 0.5),
    ],
)
def test_slope(f, x, exact, digits):
    slope, error, _, _, kind, _ = at(f, x)
    assert kind == SMOOTH
    assert abs(slope - exact) <= error + 1e-15 * abs(exact)
    assert error <= digits * abs(exact)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: 5 + 0 * x, 2.0),
        (lambda x: 0 * x, 0.0),
        (lambda x: x * x, 0.0),
        (lambda x: 1 + x * x, 0.0),
        (np.cos, 0.0),
        (sigmoid, 800.0),
        (relu, -1e-9),
        (lambda x: relu(x - 1), 1 - 1e-9),
        (np.floor, 1.001),
        (lambda x: np.abs(x) ** 1.5, 0.0),
    ],
)
def test_zero_slope(f, x):
    slope, error, _, _, kind, _ = at(f, x)
    assert (slope, kind) == (0, SMOOTH)
    assert error <= 1e-9


@pytest.mark.parametrize("x", [0.0, 1.0, -3e4, 1e-6])
@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (relu, 0, 1),
        (np.abs, -1, 1),
        (lambda t: np.maximum(2 * t, 3 * t), 2, 3),
        (lambda t: np.minimum(2 * t, 3 * t), 3, 2),
        (lambda t: 1e-5 * relu(t) + t, 1, 1 + 1e-5),
        (lambda t: np.where(t > 0, np.expm1(t), 2 * np.sin(t)), 2, 1),
    ],
)
def test_kink(f, left, right, x):
    slope, error, found_left, found_right, kind, calls = at(lambda t: f(t - x), x)
    assert kind == KINK
    assert found_left == pytest.approx(left, abs=1e-3 * abs(right - left))
    assert found_right == pytest.approx(right, abs=1e-3 * abs(right - left))
    assert slope == pytest.approx((left + right) / 2, abs=1e-3 * abs(right - left))
    assert abs(right - left) / 2 <= error <= 0.51 * abs(right - left)
    assert calls <= 61


@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (np.sign, np.inf, np.inf),
        (np.floor, np.inf, 0),
        (np.ceil, 0, np.inf),
        (lambda t: np.where(t > 0, t - 1, t), 1, -np.inf),
        (lambda t: np.sqrt(np.abs(t)), -np.inf, np.inf),
        (np.cbrt, np.inf, np.inf),
        (lambda t: np.where(t < 0, np.nan, np.sin(t)), np.nan, 1),
        (np.sqrt, np.nan, np.inf),
        (np.log, np.nan, np.nan),
    ],
)
def test_jump(f, left, right):
    slope, error, found_left, found_right, kind, _ = at(f, 0.0)
    assert kind == JUMP
    assert np.isnan(slope)
    assert error == np.inf
    assert found_left == pytest.approx(left, nan_ok=True)
    assert found_right == pytest.approx(right, nan_ok=True)


@pytest.mark.parametrize("large", [1e10, 1e11, 1e12])
@pytest.mark.parametrize("smooth", [0, 1])
def test_digits_lost_inside_are_silent(large, smooth):
    slope, error, _, _, kind, _ = at(lambda x: smooth * np.sin(x) + ((x + large) - large), 0.7)
    assert kind == SILENT
    assert abs(slope - (smooth * np.cos(0.7) + 1)) <= error


def test_a_fine_staircase_is_silent():
    slope, error, _, _, kind, _ = at(np.round, 1e5 + 0.2)
    assert (slope, kind) == (0, SILENT)
    assert error >= 1


def test_noise_is_silent():
    rng = np.random.default_rng(0)
    assert at(lambda x: rng.normal(size=1), 1.0)[4] == SILENT
    slope, error, _, _, kind, _ = at(lambda x: x + 1e-8 * rng.normal(size=1), 1.0)
    assert kind == SMOOTH
    assert abs(slope - 1) <= error <= 1e-3


@pytest.mark.parametrize("x", [np.inf, np.nan])
def test_what_is_not_finite_is_a_jump(x):
    slope, error, _, _, kind, _ = at(np.sin, x)
    assert np.isnan(slope)
    assert (error, kind) == (np.inf, JUMP)


def test_21_calls_on_smooth_ground():
    assert at(np.exp, 0.7)[5] == 21


SMOOTH_FUNCTIONS = [
    (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    (np.sin, np.cos),
    (lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x)),
    (np.arctan, lambda x: 1 / (1 + x * x)),
    (lambda x: np.logaddexp(0, x), sigmoid),
    (lambda x: np.sqrt(1 + x * x), lambda x: x / np.sqrt(1 + x * x)),
]


def random_line(rng, kinks, at_kink):
    """A random sum of smooth functions and relus in one variable: f, x, its slopes to the left and right of x."""
    scale, size = 10.0 ** rng.uniform(-6, 6), 10.0 ** rng.uniform(-6, 6)
    x = rng.normal() * scale
    places = x + scale * rng.normal(size=kinks) * 10.0 ** rng.uniform(-7, 0, size=kinks)
    if at_kink:
        places[0] = x
    weights = rng.normal(size=kinks) * 10.0 ** rng.uniform(-2, 0, size=kinks)
    terms = [(rng.normal(), 10.0 ** rng.uniform(-1, 1) / scale, i) for i in rng.integers(len(SMOOTH_FUNCTIONS), size=3)]

    def f(t):
        smooth = sum(a * SMOOTH_FUNCTIONS[i][0](w * t) for a, w, i in terms)
        return size * (smooth + np.sum(weights * relu((t[:, None] - places) / scale), axis=1))

    smooth = sum(a * w * SMOOTH_FUNCTIONS[i][1](w * x) for a, w, i in terms)
    slopes = [size * (smooth + np.sum(weights[there]) / scale) for there in (places < x, places <= x)]
    return f, x, *slopes


@pytest.mark.parametrize("kinks", [0, 1, 20])
def test_honest_and_never_a_kink_nearby_for_one_here(kinks):
    rng = np.random.default_rng(kinks)
    kinds = Counter()
    for _ in range(400):
        f, x, exact, _ = random_line(rng, kinks, at_kink=False)
        slope, error, _, _, kind, _ = at(f, x)
        assert abs(slope - exact) <= error + 1e-14 * abs(exact)
        kinds[kind] += 1
    assert kinds[KINK] == kinds[JUMP] == 0
    assert kinds[SMOOTH] >= 398


def test_random_kinks_are_found():
    rng = np.random.default_rng(3)
    kinds = Counter()
    for _ in range(300):
        f, x, left, right = random_line(rng, 5, at_kink=True)
        slope, error, _, _, kind, _ = at(f, x)
        margin = error + 1e-14 * max(abs(left), abs(right))
        kinds[kind] += 1
        if abs(right - left) > 1e-4 * max(abs(left), abs(right)):
            assert abs(left - slope) <= margin
            assert abs(right - slope) <= margin
    assert kinds[KINK] >= 295
    assert kinds[JUMP] == 0


ACTIVATIONS = [jnp.tanh, jax.nn.softmax, jax.nn.gelu, jnp.sin, jax.nn.softplus, jax.nn.relu, jnp.abs, jnp.sort]


@pytest.mark.slow
def test_honest_on_random_networks():
    rng = np.random.default_rng(0)
    calls, kinds = [], Counter()
    for _ in range(20):
        n, scale, size = int(rng.integers(1, 51)), 10.0 ** rng.uniform(-6, 6), 10.0 ** rng.uniform(-6, 6)
        one, two = (ACTIVATIONS[i] for i in rng.integers(len(ACTIVATIONS), size=2))
        V, W = rng.normal(size=(2, n, n)) / np.sqrt(n)

        def f(leaves, one=one, two=two, V=V, W=W, scale=scale, size=size):
            return [size * two(W @ one(V @ leaves[0] / scale))]

        jitted, tangent = jax.jit(f), jax.jit(lambda x, v, f=f: jax.jvp(lambda x: f([x])[0], (x,), (v,))[1])
        primal = Counted(lambda x, f=jitted: f([x])[0])
        for draw in range(10):
            x, v = rng.normal(size=n) * scale, rng.normal(size=n)
            if draw % 2:
                v = np.eye(n)[draw % n]
            before = primal.calls
            found = coordinate(primal, [x], 0, (draw % n,)) if draw % 2 else along(primal, [x], [v])
            calls.append(primal.calls - before)
            exact = np.asarray(tangent(x, v))
            # The rounding that autodiff itself makes.
            rounding = 1e-13 * size / scale
            assert np.all(np.abs(found.slope[0] - exact) <= found.error[0] + rounding)
            kinds.update(found.kind[0].tolist())
    assert kinds[KINK] == kinds[JUMP] == 0
    assert kinds[SMOOTH] >= 0.99 * kinds.total()
    assert np.median(calls) == 21
    assert np.mean(calls) < 32


def test_softmax_at_1e4():
    x = np.array([1e4, 1e4 + 0.3, 1e4 - 1.0])
    primal = jax.jit(lambda leaves: [jax.nn.softmax(leaves[0])])
    exact = np.asarray(jax.jacobian(jax.nn.softmax)(x))
    for i in range(3):
        found = coordinate(primal, [x], 0, (i,))
        assert found.kind[0].tolist() == [SMOOTH] * 3
        assert np.all(np.abs(found.slope[0] - exact[:, i]) <= found.error[0])
        assert np.all(found.error[0] < 1e-8)


def test_several_leaves_and_outputs_of_every_kind():
    X, ids = np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([1, 0])

    def primal(leaves):
        X, ids = leaves
        return [relu(X), np.sum(X[ids] ** 2), np.floor(X[0, 0]), X.astype(np.int64), np.zeros((0, 3))]

    found = along(primal, [X, ids], [np.ones((2, 2)), None])
    assert [a.shape for a in found.slope] == [(2, 2), (), (), (2, 2), (0, 3)]
    assert all([a.shape for a in field] == [a.shape for a in found.slope] for field in found)
    assert found.kind[0].tolist() == [[KINK, SMOOTH], [SMOOTH, KINK]]
    np.testing.assert_allclose(found.slope[0], [[0.5, 1], [1, 0.5]], rtol=1e-12)
    np.testing.assert_allclose(found.slope[1], 6, rtol=1e-10)
    assert found.kind[2] == JUMP
    assert found.kind[3].tolist() == [[SMOOTH, JUMP], [JUMP, SMOOTH]]  # rounds toward zero
    assert found.kind[0].dtype == np.int8


@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-8, 1e-10, -1e-8])
def test_a_jump_of_the_curvature_is_smooth(distance):
    def f(t):
        return 0.3 + np.sin(t) + relu(t - 1) ** 2

    slope, error, _, _, kind, _ = at(f, 1 + distance)
    assert kind == SMOOTH
    assert abs(slope - np.cos(1 + distance) - 2 * max(distance, 0)) <= error < 1e-6


def test_ties_of_max():
    found = coordinate(lambda leaves: [np.max(leaves[0])], [np.array([3.0, 3.0, 1.0])], 0, (1,))
    assert (found.kind[0], found.left[0], found.right[0], found.slope[0]) == (KINK, 0, 1, 0.5)


def test_a_small_element_among_large_ones():
    # Steps relative to 1e-12 lose everything to the 5; steps relative to the rest don't.
    found = coordinate(lambda leaves: [5 + np.sum(np.sin(leaves[0]))], [np.array([1e-12, 1.0, -2.0])], 0, (0,))
    assert found.kind[0] == SMOOTH
    assert abs(found.slope[0] - 1) <= found.error[0] < 1e-9


def test_complex_leaf():
    z = np.array([1.0 + 2.0j, 0.5 - 1e-3j])

    def primal(leaves):
        return [np.exp(leaves[0]), np.abs(leaves[0]) ** 2]

    real, imaginary = coordinate(primal, [z], 0, (0,)), coordinate(primal, [z], 0, (0,), phase=1j)
    assert real.slope[0].dtype == np.complex128
    assert real.error[0].dtype == real.slope[1].dtype == np.float64
    for found, unit, square in ((real, 1, 2.0), (imaginary, 1j, 4.0)):
        assert abs(found.slope[0][0] - unit * np.exp(z[0])) <= found.error[0][0] < 1e-8
        assert abs(found.slope[1][0] - square) <= found.error[1][0] < 1e-8
        assert found.slope[0][1] == 0
        assert not np.any(found.kind[0])
    v = np.array([1j, 2.0 - 1j])
    turned = along(primal, [z], [v])
    assert np.all(np.abs(turned.slope[0] - v * np.exp(z)) <= turned.error[0])


def test_kind_of_a_complex_output_is_the_worse_of_its_parts():
    found = at(lambda x: x + 1j * np.abs(x), 0.0)
    assert found[4] == KINK
    assert found[2:4] == (1 - 1j, 1 + 1j)


@pytest.mark.parametrize(
    ("leaves", "direction", "message"),
    [
        ([np.zeros(2)], [np.zeros(2)], "nothing moves: the direction is zero"),
        ([np.zeros(2)], [None], "nothing moves: the direction is zero"),
        ([np.zeros(2, int)], [np.ones(2)], "a leaf that moves must be float64 or complex128, not int64"),
        ([np.zeros(2)], [np.ones(3)], r"the direction is \(3,\) where the leaf is \(2,\)"),
    ],
)
def test_bad_input(leaves, direction, message):
    with pytest.raises(ValueError, match=message):
        along(lambda leaves: leaves, leaves, direction)


def test_no_imaginary_part():
    with pytest.raises(ValueError, match="leaf 0 is float64 and has no imaginary part"):
        coordinate(lambda leaves: leaves, [np.ones(2)], 0, (0,), phase=1j)


def test_complex_step():
    x, v = np.array([0.3, 1e-6, 40.0]), np.array([1.0, -2.0, 0.5])
    (slope,) = complex_step(lambda leaves: [np.exp(np.sin(leaves[0]))], [x], [v]) or [None]
    np.testing.assert_allclose(slope, np.exp(np.sin(x)) * np.cos(x) * v, rtol=4e-15)


@pytest.mark.parametrize(
    "f",
    [
        np.abs,  # the modulus: the imaginary part is lost
        np.cbrt,  # refuses
        lambda x: x + 1j,  # is complex itself
        lambda x: x / 0.0,  # not finite
        np.real,
        lambda x: x + np.iscomplexobj(x),  # another function
    ],
)
def test_no_complex_step(f):
    with np.errstate(all="ignore"):
        assert complex_step(lambda leaves: [f(leaves[0])], [np.array([1.0, 2.0])], [np.ones(2)]) is None
    assert complex_step(lambda leaves: leaves, [np.ones(2) + 1j], [np.ones(2)]) is None
