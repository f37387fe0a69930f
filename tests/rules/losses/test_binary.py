"""Binary classification: logits and probabilities at their edges, and every digit over the whole range of a dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import optimized_jit
from precision import autodiff, by_torch, grid, over_the_whole_range, sigma
from rules.losses.rows import CHANCES, assert_edges, in_dtype, outcomes, subject
from rules.refusals import refuses

from handgrad import rules

every_dtype = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])


def cross_entropy(z, y):
    return y * np.logaddexp(-z, 0) + (1 - y) * np.logaddexp(z, 0)


def above(z, y):
    """σ(z) − y."""
    return np.where(np.abs(z) < 1, np.tanh(z / 2) / 2 + (0.5 - y), (1 - y) * sigma(z) - y * sigma(-z))


# σ(z) − y is a difference of inputs at a target between 0 and 1.
MOVED = {"dZ": lambda z, y, d: np.abs(d * z) * sigma(z) * sigma(-z)}


def focal(gamma):
    def truth(z, y, d):
        p, n = sigma(z), sigma(-z)
        doubt, c = y * n + (1 - y) * p, cross_entropy(z, y)
        ratio = 1 / (np.where(y == 0, 0, y / p) + np.where(y == 1, 0, (1 - y) / n))
        slope = doubt**gamma * (above(z, y) + gamma * (1 - 2 * y) * ratio * c)
        less = np.where(doubt == 0, 0, doubt ** (gamma - 1))
        return doubt**gamma * c, d * slope, d * (-gamma * np.tanh(z / 2) * less * c - doubt**gamma * z)

    def plain(z, y):
        p = jax.nn.sigmoid(z)
        return (1 - (p * y + (1 - p) * (1 - y))) ** gamma * optax.losses.sigmoid_binary_cross_entropy(z, y)

    settings = {"name": f"{gamma:g}", "rivals": {"optax": autodiff(plain)}, "options": {"gamma": gamma}}
    return subject("focal_loss", truth, CHANCES, outputs="C dZ dY", moved=MOVED, **settings)


def inside(dtype):
    """The grid between 0 and 1; what 0 and 1 themselves count as is a convention, tested below."""
    numbers = grid(dtype)
    return numbers[(numbers > 0) & (numbers < 1)]


def of_probabilities(a, y, d):
    odds = np.where(np.abs(a - 0.5) < 0.25, -2 * np.arctanh(2 * a - 1), np.log1p(-a) - np.log(a))
    return -(y * np.log(a) + (1 - y) * np.log1p(-a)), d * (a - y) / a / (1 - a), d * odds


SIGMOID_RIVALS = {
    "optax": autodiff(optax.losses.sigmoid_binary_cross_entropy),
    **by_torch("binary_cross_entropy_with_logits", reduction="none"),
}
SUBJECTS = [
    subject(
        "sigmoid_cross_entropy",
        lambda z, y, d: (cross_entropy(z, y), d * above(z, y), -d * z),
        CHANCES,
        outputs="C dZ dY",
        rivals=SIGMOID_RIVALS,
        moved=MOVED,
    ),
    focal(0.5),
    focal(2.0),
    subject(
        "binary_cross_entropy",
        of_probabilities,
        CHANCES,
        numbers=inside,
        rivals=by_torch("binary_cross_entropy", reduction="none"),
        bars={"dA": 4, "dY": 4},
    ),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_edges():
    """A logit of ±∞ that is right, a weight of 0, logits far from 1."""
    right = [[-np.inf, np.inf, 0.5]], [[0.0, 1.0, 0.5]]
    assert_edges(
        zero_times_infinity=[
            ("sigmoid_cross_entropy", *right),
            ("focal_loss", *right),
            ("focal_loss", *right, {"gamma": 0.0}),
            ("focal_loss", *right, {"gamma": 0.5, "alpha": 0.25}),
            ("binary_cross_entropy", [[0.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]]),
        ],
        weightless=[
            ("sigmoid_cross_entropy", [[-np.inf]], [[1.0]]),
            ("focal_loss", [[-np.inf]], [[1.0]]),
            ("binary_cross_entropy", [[np.nan]], [[1.0]]),
        ],
        far=[(op, [[1.0, -1.0, 0.5]], [[0.0, 1.0, 1.0]]) for op in ("sigmoid_cross_entropy", "focal_loss")],
    )


def test_a_logit_that_is_minus_infinity_on_both_sides():
    """The whole way to the teacher's logits."""
    z = jnp.full((1, 1), -jnp.inf)
    bits = optimized_jit(jax.grad(lambda z, t: rules.sigmoid_cross_entropy(z, rules.sigmoid(t)).sum(), argnums=(0, 1)))
    assert all((d == 0).all() for d in bits(z, z))


@every_dtype
def test_sigmoid_then_binary_cross_entropy(dtype):
    """Over the whole range: finite, of the sign of σ(z) − y, no larger than it; and exact where σ(z) is not rounded."""
    z = np.concatenate([np.linspace(-60000, 60000, 41), np.linspace(-120, 120, 481)]).astype(dtype)
    z, y = (a.ravel() for a in np.meshgrid(z, np.array([0, 1, 0.5, 0.25]).astype(dtype), indexing="ij"))

    @optimized_jit
    def run(z, y):
        C, pull = jax.vjp(lambda z, y: rules.binary_cross_entropy(rules.sigmoid(z), y), z, y)
        return C, *pull(jnp.ones_like(C))

    C, dz, dy = (np.asarray(a, np.float64) for a in run(z, y))
    assert all(np.isfinite(a).all() for a in (C, dz, dy))
    z, eps = z.astype(np.float64), float(jnp.finfo(dtype).eps)
    expected = sigma(z) - y.astype(np.float64)
    assert (dz * expected >= 0).all()
    assert (np.abs(dz) <= np.abs(expected) * (1 + 8 * eps) + 8 * eps).all()
    inner = np.abs(z) < 2
    np.testing.assert_allclose(dz[inner], expected[inner], atol=8 * eps)
    assert (C >= 0).all()


@every_dtype
def test_probabilities_of_zero_and_one(dtype):
    """What they count as: the loss of a surely wrong prediction, no jump away from the next number, and its slope.

    And under loss scaling, as float16 needs it, no infinite slope.
    """
    info = jnp.finfo(dtype)
    eps, largest = float(info.eps), float(info.max)
    half_step, below = eps / 4, 1 - eps / 2
    least = max(float(info.smallest_subnormal), float(jnp.finfo(jnp.promote_types(dtype, jnp.float32)).tiny))
    a, y = (in_dtype(x, dtype) for x in ([0.0, 1.0, 0.0, 1.0, below], [0.0, 1.0, 1.0, 0.0, 0.0]))

    @optimized_jit
    def run(a, y):
        C, residuals = rules.binary_cross_entropy_forward(a, y)
        ours = jax.grad(lambda a: rules.binary_cross_entropy_forward(a, y)[0].sum())(a)
        scaled = rules.binary_cross_entropy_backward(residuals, jnp.full_like(C, 2.0**15))
        return C, *rules.binary_cross_entropy_backward(residuals, jnp.ones_like(C)), *scaled, ours

    C, dA, dY, scaled_dA, scaled_dY, of_ours = (np.asarray(a, np.float64) for a in run(a, y))
    odds = [-np.log(least), np.log(half_step)] * 2
    slopes = [1, -1, -min(largest, 1 / least), min(largest, 1 / half_step)]
    np.testing.assert_allclose(C[:4], [0, 0, -np.log(least), -np.log(half_step)], rtol=eps)
    np.testing.assert_allclose(dA[:4], slopes, rtol=eps)
    np.testing.assert_allclose(dY[:4], odds, rtol=eps)
    assert 0 < C[3] - C[4] < 0.8  # log 2: half of the step
    assert np.isfinite(scaled_dA).all()
    assert dtype == jnp.float16 or np.isfinite(scaled_dY).all()
    if dtype != jnp.float16:  # where it overflows
        np.testing.assert_allclose(of_ours[:4], dA[:4], rtol=eps)


def test_focal_loss_without_focus_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    z, y, dC = rng.standard_normal((4, 5)), rng.uniform(0, 1, (4, 5)), np.array([1.0, -2.0, 0.5, 0.25])
    found, expected = outcomes([("focal_loss", z, y, {"gamma": 0.0}), ("sigmoid_cross_entropy", z, y)], dC)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sure_answer(dtype):
    """At ±1e4, and at ±60 with targets in between: no NaN, 0 where right, z and its own slope where wrong."""
    z = in_dtype([[1e4, -1e4, 1e4, -1e4, 60.0, -60.0]], dtype)
    y = in_dtype([[1, 0, 0, 1, 0.5, 0.25]], dtype)
    focal = [("focal_loss", z, y, {"gamma": gamma}) for gamma in (0.0, 0.3, 1.0, 2.0)]
    (C, dZ, _), *found = outcomes([("sigmoid_cross_entropy", z.T, y.T), *focal])
    assert C[:4].tolist() == [0, 0, 1e4, 1e4]
    assert dZ[:4, 0].tolist() == [0, 0, 1, -1]
    for C, dZ, dY in found:
        assert all(np.isfinite(a).all() for a in (C, dZ, dY))
        np.testing.assert_allclose(dZ[0, :4], [0, 0, 1, -1], atol=1e-6)


def test_bad_input():
    Z, Y = np.zeros((2, 4, 5))
    refuses(rules.focal_loss, "the target Y must have shape (4, 5) like the logits Z, got float64 (4, 1)", Z, Y[:, :1])
    refuses(rules.focal_loss, "gamma must be a positive number, got -1", Z, Y, gamma=-1)
    refuses(rules.focal_loss, "alpha must be in [0, 1] or None, got 1.5", Z, Y, alpha=1.5)
