"""The dropout layer: keys, policies, and gradients under the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, check_right

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 5)))
TARGET = jnp.asarray(RNG.standard_normal((4, 5)))
POLICIES = ["save", "recompute"]


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_key_it_is_the_identity(policy):
    layer = layers.dropout(0.5, residuals=policy)
    y, residuals = layer.forward(layer.init(KEY, X), X)
    assert y is X
    assert layer.backward(residuals, TARGET) == (TARGET, ())


def models(policy):
    noisy = hg.chain(hg.linear(5), layers.dropout(0.4, residuals=policy), hg.tanh())
    return {"chain": noisy, "repeat": hg.repeat(hg.residual(noisy), 3)}


@pytest.mark.parametrize("name", ["chain", "repeat"])
def test_the_gradient_sees_the_noise_of_its_own_key(name):
    """Under either policy, and the policies agree bit for bit."""
    saved, recomputed = (models(policy)[name] for policy in POLICIES)
    loss, rng = hg.squared_error(), np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), jax.eval_shape(saved.init, KEY, X))

    @jax.jit
    def every_way(params, x):
        arguments = params, x, TARGET, None, jax.random.key(7, impl="unsafe_rbg")
        by_hand = [hg.value_and_grad(model, loss, argnums=(0, 1))(*arguments) for model in (saved, recomputed)]
        autodiff = jax.value_and_grad(hg.objective(recomputed, loss), argnums=(0, 1))(*arguments)
        return *by_hand, autodiff, hg.objective(saved, loss)(params, x, TARGET)

    of_saved, of_recomputed, autodiff, without_noise = every_way(params, X)
    assert_same(of_saved, of_recomputed, rtol=0)
    assert_same(of_recomputed, autodiff)
    assert of_saved[0] != without_noise


def test_every_layer_of_a_repeat_drops_its_own():
    model = hg.repeat(layers.dropout(0.5), 3)
    _, residuals = model.forward((), jnp.ones((8, 8)), KEY)
    first, second, third = np.asarray(residuals.kept.mask)
    assert ((first != second).any(), (second != third).any()) == (True, True)


def test_custom_vjp_takes_the_key():
    f = hg.custom_vjp(layers.dropout(0.5))

    @jax.jit
    def both(x):
        kept = jax.random.bernoulli(KEY, jnp.float32(0.5), X.shape)
        return jax.grad(lambda x: jnp.sum(jnp.sin(f((), x, KEY))))(x), jnp.where(kept, 2 * jnp.cos(2 * x), 0)

    assert_same(*both(X))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_checker_takes_the_key(policy):
    check_right(hg.check_layer(layers.dropout(0.3, residuals=policy), X, key=KEY, control=False))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layers.dropout(1.0), r"dropout: rate must be a number in \[0, 1\), got 1.0"),
        (lambda: layers.dropout(0.5, residuals="key"), "dropout: residuals must be 'save' or 'recompute', got 'key'"),
        (lambda: layers.dropout(0.5).forward({}, X), r"dropout: params must be \(\), got dict"),
        (
            lambda: layers.dropout(0.5).forward((), X.astype(int), KEY),
            r"dropout_forward: X must have a floating-point dtype, got int64 \(4, 5\)",
        ),
        (
            lambda: layers.dropout(0.5).backward(layers.dropout(0.5).forward((), X, KEY)[1], X[:2]),
            r"dropout_backward: dY must be the cotangent of Y, float64 \(4, 5\), got float64 \(2, 5\)",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(hg.InputError, match=f"^{sentence}$"):
        call()
