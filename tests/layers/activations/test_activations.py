"""Every activation layer reaches its own rule, with its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2, 3)) * 2)


def elu(x, alpha):
    return jnp.where(x > 0, x, alpha * (jnp.exp(jnp.minimum(x, 0)) - 1))


def log_softmax(x):
    return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


LAYERS = {
    "identity": (hg.identity(), lambda x: x),
    "sigmoid": (hg.sigmoid(), lambda x: 1 / (1 + jnp.exp(-x))),
    "tanh": (hg.tanh(), lambda x: (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x))),
    "softplus": (hg.softplus(), lambda x: jnp.log(1 + jnp.exp(x))),
    "relu": (hg.relu(), lambda x: x * (x > 0)),
    "leaky_relu": (hg.leaky_relu(), lambda x: jnp.where(x > 0, x, 0.01 * x)),
    "leaky_relu-0.3": (hg.leaky_relu(0.3), lambda x: jnp.where(x > 0, x, 0.3 * x)),
    "elu": (hg.elu(), lambda x: elu(x, 1.0)),
    "elu-0.4": (hg.elu(alpha=0.4), lambda x: elu(x, 0.4)),
    "selu": (hg.selu(), lambda x: 1.0507009873554804934 * elu(x, 1.6732632423543772848)),
    "silu": (hg.silu(), lambda x: x / (1 + jnp.exp(-x))),
    "mish": (hg.mish(), lambda x: x * jnp.tanh(jnp.log(1 + jnp.exp(x)))),
    "gelu": (hg.gelu(), lambda x: x * (1 + jax.scipy.special.erf(x / jnp.sqrt(2.0))) / 2),
    "gelu-tanh": (
        hg.gelu(approximate=True),
        lambda x: x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "softmax": (hg.softmax(), lambda x: jnp.exp(log_softmax(x))),
    "log_softmax": (hg.log_softmax(), log_softmax),
    "logsumexp": (hg.logsumexp(), lambda x: jnp.log(jnp.exp(x).sum(-1))),
}
every_layer = pytest.mark.parametrize(("layer", "reference"), LAYERS.values(), ids=LAYERS.keys())


@every_layer
def test_value_and_gradient(layer, reference):
    @jax.jit
    def both(x, dy):
        y, residuals = layer.forward((), x)
        expected, vjp = jax.vjp(reference, x)
        return (y, layer.backward(residuals, dy)[0]), (expected, vjp(dy)[0])

    dy = jnp.asarray(np.random.default_rng(1).standard_normal(jax.eval_shape(reference, X).shape))
    for found, expected in zip(*both(X, dy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * float(jnp.abs(expected).max()))


def test_options_change_the_layer():
    """Else the rows with options would prove nothing."""
    for name, other in (("leaky_relu", "leaky_relu-0.3"), ("elu", "elu-0.4"), ("gelu", "gelu-tanh")):
        one, two = (LAYERS[key][0].forward((), X)[0] for key in (name, other))
        assert jnp.abs(one - two).max() > 1e-4


@every_layer
def test_no_parameters(layer, reference):
    assert layer.init(jax.random.key(0), X) == ()
    y, residuals = layer.forward((), X, jax.random.key(0))
    assert (y == layer.forward((), X)[0]).all()
    assert layer.backward(residuals, y)[1] == ()


@pytest.mark.parametrize(
    "params",
    [{}, None, (X,), [], hg.LinearParams(X), np.ones(1), np.ones(3), jnp.ones(3)],
    ids=["dict", "None", "tuple", "list", "linear", "numpy-1", "numpy-3", "jax"],
)
def test_params_of_another_model(params):
    with pytest.raises(hg.InputError, match=r"^relu_forward: params must be \(\), got "):
        hg.relu().forward(params, X)


def test_a_layer_from_a_rule_of_ones_own():
    def cube_forward(X, *, scale):
        return scale * X**3, X

    def cube_backward(residuals, dY, *, scale):
        return (3 * scale * residuals**2 * dY,)

    layer = hg.from_rule(hg.Rule(cube_forward, cube_backward), scale=2.0)
    gradient = hg.grad(layer, hg.squared_error(), argnums=1)((), X, jnp.zeros_like(X), jnp.ones(4))
    np.testing.assert_allclose(gradient, jax.grad(lambda x: ((2 * x**3) ** 2).sum())(X), rtol=1e-12)
