"""Layer norm, and what holds for every norm's layer: its parameters, and gradients in a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, TARGET = RNG.standard_normal((3, 4, 6)) + 1, RNG.standard_normal((3, 4, 6))
MEAN, VARIANCE = RNG.standard_normal(6), RNG.uniform(0.5, 2, 6)
NORMS = {
    "layer_norm": layers.layer_norm,
    "rms_norm": layers.rms_norm,
    "group_norm": lambda **options: layers.group_norm(2, **options),
    "instance_norm": layers.instance_norm,
    "batch_norm": layers.batch_norm,
    "batch_norm_inference": lambda **options: layers.batch_norm_inference(MEAN, VARIANCE, **options),
}
every_norm = pytest.mark.parametrize("name", NORMS)


def drawn_params(model):
    """None of them zero or one."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: rng.standard_normal(p.shape), jax.eval_shape(model.init, KEY, X))


@every_norm
def test_init_and_layers_without_parameters(name):
    whole, no_parameters = NORMS[name](), {"scale": False} if name == "rms_norm" else {"scale": False, "shift": False}
    layer = NORMS[name](**no_parameters)
    for dtype in ("bfloat16", "float32", "float64"):
        params = jax.eval_shape(lambda dtype=dtype: whole.init(KEY, jax.ShapeDtypeStruct(X.shape, dtype)))
        assert isinstance(params, layers.NormParams)
        assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
        assert (params.beta is None) == (name == "rms_norm")

    @jax.jit
    def both(x):
        params = layer.init(KEY, x)
        assert params == layers.NormParams(None, None)
        y, residuals = layer.forward(params, x)
        assert layer.backward(residuals, TARGET)[1] == params
        params = whole.init(KEY, x)
        return y, whole.forward(params, x)[0], params

    y, expected, params = both(X)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    assert (np.asarray(params.gamma) == np.ones(6)).all()
    assert params.beta is None or not np.asarray(params.beta).any()


@every_norm
def test_in_a_network(name):
    """In a chain and repeated, between linear layers: value_and_grad is autodiff's, whatever is kept; and each
    example's gradient is the one that it has alone.

    A bias right before a norm over tokens or examples would have a gradient of zero.
    """
    kept = {} if name == "batch_norm_inference" else {"residuals": "recompute"}
    model = hg.chain(
        hg.linear(6, bias=False),
        NORMS[name](),
        hg.tanh(),
        hg.repeat(hg.residual(hg.chain(norm=NORMS[name](eps=0.1, **kept), up=hg.linear(6))), 2),
    )
    apart = hg.chain(hg.linear(6, bias=False), NORMS[name](), hg.linear(6))
    loss, weights = hg.l2_loss(), np.array([0.5, 2.0, 0.0])

    @jax.jit
    def both(params, of_apart, x):
        by_hand = hg.value_and_grad(model, loss, argnums=(0, 1))
        autodiff = jax.value_and_grad(hg.objective(model, loss), argnums=(0, 1))
        network = by_hand(params, x, TARGET, weights), autodiff(params, x, TARGET, weights)
        if name == "batch_norm":
            return [network]
        _, factors = hg.value_and_factors(apart, loss)(of_apart, x, TARGET)
        _, alone = hg.value_and_factors(apart, loss)(of_apart, x[1:2], TARGET[1:2])
        return [network, (hg.materialize(factors, jnp.asarray([0.0, 1.0, 0.0])), hg.materialize(alone))]

    for found, expected in both(drawn_params(model), drawn_params(apart), X):
        assert_same(found, expected)


@pytest.mark.parametrize("name", [name for name in NORMS if name != "batch_norm_inference"])
def test_recomputing_keeps_the_input(name):
    def forward(params, x):
        _, residuals = NORMS[name](residuals="recompute").forward(params, x)
        assert residuals.X is x
        assert residuals.A is None
        return residuals

    jax.eval_shape(forward, drawn_params(NORMS[name]()), X)


@every_norm
def test_params_and_inputs_of_the_wrong_kind(name):
    layer = NORMS[name]()
    for params in ((), (MEAN, MEAN), {"gamma": MEAN}, None, MEAN, hg.LinearParams(X, MEAN)):
        with pytest.raises(hg.InputError, match=rf"^{name}: params must be NormParams, got "):
            layer.forward(params, X)
    beta, other = (None, MEAN) if name == "rms_norm" else (MEAN, None)
    for of, params, sentence in (
        (layer, (None, beta), r": params\.gamma must be an array, got NoneType$"),
        (NORMS[name](scale=False), (MEAN, beta), r": params\.gamma must be None, got float64 \(6,\)$"),
        (layer, (MEAN, other), r": params\.beta must be (None|an array), got "),
        (layer, (MEAN[:5], beta), r"_forward: gamma must have shape \(6,\) to meet X \(3, 4, 6\), got "),
    ):
        with pytest.raises(hg.InputError, match=f"^{name}{sentence}"):
            of.forward(layers.NormParams(*params), X)
    for x in (X.astype(int), X[0, 0], None):
        with pytest.raises(hg.InputError, match=rf"^{name}: x must .*, got "):
            layer.init(KEY, x)
