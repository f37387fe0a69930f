"""Layer norm, and what holds for every norm's layer: its parameters, and gradients in a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, drawn

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
    """In a chain and repeated, between linear layers: value_and_grad is autodiff's, whatever is kept.

    A bias right before a norm over tokens or examples would have a gradient of zero.
    """
    kept = {} if name == "batch_norm_inference" else {"residuals": "recompute"}
    block = hg.residual(hg.chain(norm=NORMS[name](eps=0.1, **kept), up=hg.linear(6)))
    model = hg.chain(hg.linear(6, bias=False), NORMS[name](), hg.tanh(), hg.repeat(block, 2))
    assert_same(*both_gradients(model, hg.l2_loss())(drawn(model, X), X, TARGET, np.array([0.5, 2.0, 0.0])))


@pytest.mark.parametrize("name", [name for name in NORMS if name != "batch_norm_inference"])
def test_recomputing_keeps_the_input(name):
    def forward(params, x):
        _, residuals = NORMS[name](residuals="recompute").forward(params, x)
        assert residuals.X is x
        assert residuals.A is None
        return residuals

    jax.eval_shape(forward, drawn(NORMS[name](), X), X)


@every_norm
def test_refusals(name):
    layer, unscaled = NORMS[name](), NORMS[name](scale=False)
    beta, other = (None, MEAN) if name == "rms_norm" else (MEAN, None)
    rows = {
        r": params\.gamma must be an array, got NoneType": (layer, (None, beta)),
        r": params\.gamma must be None, got float64 \(6,\)": (unscaled, (MEAN, beta)),
        r": params\.beta must be (None|an array), got .*": (layer, (MEAN, other)),
        r"_forward: gamma must have shape \(6,\) to meet X \(3, 4, 6\), got .*": (layer, (MEAN[:5], beta)),
    }
    for sentence, (of, params) in rows.items():
        assert_refused({name + sentence: lambda of=of, p=params: of.forward(layers.NormParams(*p), X)})
    for params in ((MEAN, MEAN), {"gamma": MEAN}, None, MEAN, hg.LinearParams(X, MEAN)):
        assert_refused({f"{name}: params must be NormParams, got .*": lambda p=params: layer.forward(p, X)})
    for x in (X.astype(int), X[0, 0], None):
        assert_refused({f"{name}: x must .*, got .*": lambda x=x: layer.init(KEY, x)})
