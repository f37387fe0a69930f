"""A root of each loss's Hessian and a draw that has it as variance, against jax.hessian of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, N = 3, 2, 3
Z = jnp.asarray(RNG.standard_normal((BATCH, TOKENS, N)))
LABELS = jnp.asarray(RNG.integers(0, N, (BATCH, TOKENS)))
NUMBERS = jnp.asarray(RNG.standard_normal((BATCH, TOKENS, N)))
CLASS_WEIGHTS = jnp.asarray([0.5, 2.0, 0.0])
LOSSES = {
    "softmax": (hg.softmax_cross_entropy(), LABELS),
    "softmax of distributions": (hg.softmax_cross_entropy(), jax.nn.softmax(NUMBERS)),
    "softmax, smoothed": (hg.softmax_cross_entropy(0.2, class_weights=CLASS_WEIGHTS), LABELS),
    "softmax, ignored": (hg.softmax_cross_entropy(class_weights=CLASS_WEIGHTS, ignore_index=1), LABELS.at[0].set(1)),
    "sigmoid": (hg.sigmoid_cross_entropy(), jax.nn.sigmoid(NUMBERS)),
    "squared error": (hg.squared_error(), NUMBERS),
    "l2": (hg.l2_loss(), NUMBERS),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def hessians(loss, target):
    """(batch, tokens × n, tokens × n)."""

    def of_one(z, y):
        return jax.hessian(lambda z: loss.forward(z.reshape(1, TOKENS, N), y[None])[0][0])(z)

    return jax.jit(jax.vmap(of_one))(Z.reshape(BATCH, -1), target)


@every_loss
def test_a_root_is_a_root(name):
    loss, target = LOSSES[name]

    @jax.jit
    def root(target):
        _, residuals = loss.forward(Z, target)
        units = jnp.eye(TOKENS * N).reshape(-1, 1, TOKENS, N)
        columns = jax.vmap(lambda unit: loss.root(residuals, jnp.broadcast_to(unit, Z.shape)))(units)
        return columns.reshape(TOKENS * N, BATCH, TOKENS * N)

    S = root(target)
    assert_same(jnp.einsum("cbi,cbj->bij", S, S), hessians(loss, target), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax, ignored", "sigmoid", "squared error"])
def test_a_draw_has_the_hessian_as_variance(name):
    """Mean and variance of 10,000 draws, each element within 5 standard errors."""
    loss, target = LOSSES[name]
    count = 10_000

    @jax.jit
    def moments(target):
        _, residuals = loss.forward(Z, target)
        draws = jax.vmap(lambda key: loss.draw(residuals, key))(jax.random.split(KEY, count)).reshape(count, BATCH, -1)
        products = jnp.einsum("sbi,sbj->sbij", draws, draws)
        return [(jnp.mean(a, 0), jnp.std(a, 0) / count**0.5) for a in (draws, products)]

    for (mean, error), expected in zip(
        moments(target), (jnp.zeros((BATCH, TOKENS * N)), hessians(loss, target)), strict=True
    ):
        assert jnp.all(jnp.abs(mean - expected) <= 5 * error + 1e-12)
        assert jnp.any(error > 0)


def test_a_draw_of_the_half_squared_error_is_that_of_the_squared_one():
    """√2 ε and ε, of one key."""
    one, two = (loss.draw(loss.forward(Z, NUMBERS)[1], KEY) for loss in (hg.squared_error(), hg.l2_loss()))
    assert_same(one, 2**0.5 * two)


def test_a_draw_is_the_slope_at_a_target_of_the_models_own():
    """The loss's own backward pass, at the label that was drawn."""
    residuals = rules.softmax_cross_entropy_forward(Z, LABELS)[1]
    drawn = rules.softmax_cross_entropy_draw(residuals, KEY)
    of_label = rules.softmax_cross_entropy_forward(Z, jnp.argmin(drawn, axis=-1))[1]
    assert_same(drawn, rules.softmax_cross_entropy_backward(of_label, jnp.ones(BATCH))[0])


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error", "l2_loss"])
def test_bad_input(loss):
    target = LABELS if loss == "softmax_cross_entropy" else NUMBERS
    residuals = getattr(rules, loss).forward(Z, target)[1]
    root, draw = getattr(rules, f"{loss}_root"), getattr(rules, f"{loss}_draw")
    for U in (Z[0], Z.astype(jnp.float32)):
        with pytest.raises(
            hg.InputError, match=rf"^{loss}_root: U must be the cotangent of .*, float64 \(3, 2, 3\), got"
        ):
            root(residuals, U)
    for function, argument in ((root, Z), (draw, KEY)):
        with pytest.raises(hg.InputError, match=f"^{function.__name__}: residuals must be .*Residuals, got tuple$"):
            function((), argument)
