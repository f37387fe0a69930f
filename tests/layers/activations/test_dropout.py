"""The dropout layer: keys, policies, and gradients under the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, check_right, drawn

import handgrad as hg
from handgrad.layers import dropout

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, TARGET = (jax.device_put(RNG.standard_normal((4, 5))) for _ in range(2))
POLICIES = ["save", "recompute"]


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_key_it_is_the_identity(policy):
    layer = dropout(0.5, residuals=policy)
    y, residuals = layer.forward(layer.init(KEY, X), X)
    assert y is X
    assert layer.backward(residuals, TARGET) == (TARGET, ())


@pytest.mark.parametrize("repeated", [False, True], ids=["chain", "repeat"])
def test_the_gradient_sees_the_noise_of_its_own_key(repeated):
    """Under either policy, and the policies agree bit for bit."""
    models = [hg.chain(hg.linear(5), dropout(0.4, residuals=policy), hg.tanh()) for policy in POLICIES]
    saved, recomputed = [hg.repeat(hg.residual(model), 3) for model in models] if repeated else models
    loss = hg.squared_error()

    @jax.jit
    def every_way(params, x):
        arguments = params, x, TARGET, None, jax.random.key(7, impl="unsafe_rbg")
        of_saved = hg.value_and_grad(saved, loss, argnums=(0, 1))(*arguments)
        return of_saved, *both_gradients(recomputed, loss)(*arguments), hg.objective(saved, loss)(params, x, TARGET)

    of_saved, of_recomputed, autodiff, without_noise = every_way(drawn(saved, X), X)
    assert_same(of_saved, of_recomputed, rtol=0)
    assert_same(of_recomputed, autodiff)
    assert of_saved[0] != without_noise


def test_custom_vjp_takes_the_key():
    f = hg.custom_vjp(dropout(0.5))

    @jax.jit
    def both(x):
        kept = jax.random.bernoulli(KEY, jnp.float32(0.5), X.shape)
        return jax.grad(lambda x: jnp.sum(jnp.sin(f((), x, KEY))))(x), jnp.where(kept, 2 * jnp.cos(2 * x), 0)

    assert_same(*both(X))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_checker_takes_the_key(policy):
    check_right(hg.check_layer(dropout(0.3, residuals=policy), X, key=KEY, control=False))


def test_refusals():
    layer = dropout(0.5)
    cotangent = r"dY must be the cotangent of Y, float64 \(4, 5\), got float64 \(2, 5\)"
    rows = {
        r"dropout: rate must be a number in \[0, 1\), got 1.0": lambda: dropout(1.0),
        "dropout: residuals must be 'save' or 'recompute', got 'key'": lambda: dropout(0.5, residuals="key"),
        r"dropout: params must be \(\), got dict": lambda: layer.forward({}, X),
        r"dropout_forward: X must have a floating-point dtype, got int64 \(4, 5\)": (
            lambda: layer.forward((), X.astype(int), KEY)
        ),
        f"dropout_backward: {cotangent}": lambda: layer.backward(layer.forward((), X, KEY)[1], X[:2]),
    }
    assert_refused(rows)
