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


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["chain", "repeat"])
def test_the_gradient_sees_the_noise_of_its_own_key(name, policy):
    model = models(policy)[name]
    params = model.init(KEY, X)
    by_hand, by_autodiff = (
        jax.jit(f)(params, X, TARGET, None, jax.random.key(7))
        for f in (
            hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1)),
            jax.value_and_grad(hg.objective(model, hg.squared_error()), argnums=(0, 1)),
        )
    )
    assert_same(by_hand, by_autodiff)
    assert (by_hand[0] != hg.objective(model, hg.squared_error())(params, X, TARGET)).all()


@pytest.mark.parametrize("name", ["chain", "repeat"])
def test_policies_agree_bit_for_bit(name):
    found = [
        hg.grad(model, hg.squared_error())(model.init(KEY, X), X, TARGET, None, jax.random.key(7))
        for model in (models(policy)[name] for policy in POLICIES)
    ]
    assert_same(*found, rtol=0)


def test_every_layer_of_a_repeat_drops_its_own():
    model = hg.repeat(layers.dropout(0.5), 3)
    _, residuals = model.forward((), jnp.ones((8, 8)), KEY)
    first, second, third = residuals.kept.mask
    assert ((first != second).any(), (second != third).any()) == (True, True)


def test_custom_vjp_takes_the_key():
    f = hg.custom_vjp(layers.dropout(0.5))
    dx = jax.grad(lambda x: jnp.sum(jnp.sin(f((), x, KEY))))(X)
    kept = jax.random.bernoulli(KEY, jnp.float32(0.5), X.shape)
    assert_same(dx, jnp.where(kept, 2 * jnp.cos(2 * X), 0))


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
