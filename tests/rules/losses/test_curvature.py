"""A root of each loss's Hessian and a draw that has it as variance, against jax.hessian of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from precision import grid, ulps

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, N = 3, 2, 3
Z, NUMBERS = RNG.standard_normal((2, BATCH, TOKENS, N))
LABELS = RNG.integers(0, N, (BATCH, TOKENS))
IGNORED = np.where([[True], [False], [False]], 1, LABELS)
CLASS_WEIGHTS = np.array([0.5, 2.0, 0.0])
CHANCES = np.exp(NUMBERS) / np.exp(NUMBERS).sum(-1, keepdims=True)
COUNT = 10_000
LOSSES = {
    "softmax": (hg.softmax_cross_entropy(), LABELS),
    "softmax of distributions": (hg.softmax_cross_entropy(), CHANCES),
    "softmax, smoothed": (hg.softmax_cross_entropy(0.2, class_weights=CLASS_WEIGHTS), LABELS),
    "softmax, ignored": (hg.softmax_cross_entropy(class_weights=CLASS_WEIGHTS, ignore_index=1), IGNORED),
    "sigmoid": (hg.sigmoid_cross_entropy(), CHANCES),
    "squared error": (hg.squared_error(), NUMBERS),
    "l2": (hg.l2_loss(), NUMBERS),
}
in_both_dtypes = pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])


@pytest.mark.parametrize("name", LOSSES)
def test_roots_and_draws(name):
    """S Sᵀ is the Hessian; mean and variance of 10,000 draws are 0 and it, each element within 5 standard errors."""
    loss, target = LOSSES[name]
    draws = COUNT if name in ("softmax, ignored", "sigmoid", "squared error") else 1

    def of_one(z, y):
        return jax.hessian(lambda z: loss.forward(z.reshape(1, TOKENS, N), y[None])[0][0])(z)

    @jax.jit
    def run(Z, target):
        _, residuals = loss.forward(Z, target)
        units = jnp.eye(TOKENS * N).reshape(-1, 1, TOKENS, N)
        columns = jax.vmap(lambda unit: loss.root(residuals, jnp.broadcast_to(unit, Z.shape)))(units)
        S = columns.reshape(TOKENS * N, BATCH, TOKENS * N)
        hessians = jax.vmap(of_one)(Z.reshape(BATCH, -1), target)
        drawn = jax.vmap(lambda key: loss.draw(residuals, key))(jax.random.split(KEY, draws)).reshape(draws, BATCH, -1)
        moments = [(a.mean(0), a.std(0)) for a in (drawn, jnp.einsum("sbi,sbj->sbij", drawn, drawn))]
        return jnp.einsum("cbi,cbj->bij", S, S), hessians, moments

    of_root, hessians, moments = run(Z, target)
    assert_same(of_root, hessians, rtol=1e-12)
    if draws == COUNT:
        for (mean, spread), expected in zip(moments, (np.zeros((BATCH, TOKENS * N)), hessians), strict=True):
            error = np.asarray(spread) / COUNT**0.5
            assert (np.abs(mean - expected) <= 5 * error + 1e-12).all()
            assert (error > 0).any()


def test_a_draw_is_the_slope_at_a_target_from_the_model():
    """The loss's backward pass, at the label that was drawn; and √2 ε and ε, of one key."""

    @jax.jit
    def run(Z):
        drawn = rules.softmax_cross_entropy_draw(rules.softmax_cross_entropy_forward(Z, LABELS)[1], KEY)
        C, of_label = rules.softmax_cross_entropy_forward(Z, jnp.argmin(drawn, axis=-1))
        normal = (loss.draw(loss.forward(Z, NUMBERS)[1], KEY) for loss in (hg.squared_error(), hg.l2_loss()))
        return drawn, rules.softmax_cross_entropy_backward(of_label, jnp.ones_like(C))[0], *normal

    drawn, slope, one, two = run(Z)
    assert_same(drawn, slope)
    assert_same(one, 2**0.5 * two)


@in_both_dtypes
def test_roots_over_the_whole_range(dtype):
    """√p (u (1 − p) − …) where p rounds to 1, and √(σ(z) σ(−z)) where σ(−z) underflows; three logits, the first from
    the grid."""
    z = grid(dtype)
    Z = np.stack([z, np.zeros_like(z), np.full_like(z, 1)], axis=1)
    U = np.broadcast_to(np.array([[1.0, 0.5, -2.0]]), Z.shape).astype(dtype)

    @optimized_jit
    def roots(Z, U):
        of_softmax = rules.softmax_cross_entropy_forward(Z, np.zeros(len(Z), int))[1]
        of_sigmoid = rules.sigmoid_cross_entropy_forward(Z, jnp.zeros_like(Z))[1]
        return rules.softmax_cross_entropy_root(of_softmax, U), rules.sigmoid_cross_entropy_root(of_sigmoid, U)

    softmax, sigmoids = roots(Z, U)
    Z, U = Z.astype(np.float64), U.astype(np.float64)
    with np.errstate(all="ignore"):
        D = Z - Z.max(1, keepdims=True)
        E, rooted = np.exp(D), np.exp(D / 2)
        total = E.sum(1, keepdims=True)
        others = 1 - np.eye(3)
        along = rooted * U / np.sqrt(total)
        expected = along * (E @ others) / total - E / total * (along @ others)
        r = np.exp(-np.abs(Z) / 2)
        size = np.abs(Z).max(1, keepdims=True)
        moved = (1 + size) * (np.abs(along) * (E @ others) / total + E / total * (np.abs(along) @ others))
        assert (ulps(sigmoids, r / (1 + r * r) * U) <= 4).all()
        allowed = 8 * (1 + moved / np.maximum(np.abs(expected), np.finfo(np.float64).tiny))
        assert (ulps(softmax, expected) <= np.where(np.isnan(allowed), 8, allowed)).all()


@in_both_dtypes
def test_draws_are_slopes_with_all_their_digits(dtype):
    """−(1 − p) at what was drawn, also where p rounds to 1."""
    z = (np.linspace(0, 60, 61)[:, None] * [[1, 0]]).astype(dtype)

    @optimized_jit
    def draws(z):
        of_softmax = rules.softmax_cross_entropy_forward(z, np.zeros(61, int))[1]
        of_sigmoid = rules.sigmoid_cross_entropy_forward(z, jnp.zeros_like(z))[1]
        return rules.softmax_cross_entropy_draw(of_softmax, KEY), rules.sigmoid_cross_entropy_draw(of_sigmoid, KEY)

    tails = np.exp(-z[20:, 0].astype(np.float64))
    for draw in draws(z):
        drawn = np.asarray(draw)[20:, 0]
        assert (drawn < 0).all()
        assert (ulps(drawn, -tails / (1 + tails)) <= 4).all()


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error", "l2_loss"])
def test_bad_input(loss):
    target = LABELS if loss == "softmax_cross_entropy" else NUMBERS
    _, residuals = jax.eval_shape(getattr(rules, loss).forward, Z, target)
    root, draw = getattr(rules, f"{loss}_root"), getattr(rules, f"{loss}_draw")
    message = rf"^{loss}_root: U must be the cotangent of .*, float64 \(3, 2, 3\), got"
    for U in (Z[0], Z.astype(np.float32)):
        with pytest.raises(hg.InputError, match=message):
            root(residuals, U)
    for function, argument in ((root, Z), (draw, KEY)):
        with pytest.raises(hg.InputError, match=f"^{function.__name__}: residuals must be .*Residuals, got tuple$"):
            function((), argument)
