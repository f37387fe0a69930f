import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, TARGET = jnp.asarray(RNG.standard_normal((3, 4, 6)) + 1), jnp.asarray(RNG.standard_normal((3, 4, 6)))
MEAN, VARIANCE = jnp.asarray(RNG.standard_normal(6)), jnp.asarray(RNG.uniform(0.5, 2, 6))
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
    params = jax.eval_shape(model.init, KEY, X)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)


@every_norm
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_init(name, dtype):
    params = NORMS[name]().init(KEY, jax.ShapeDtypeStruct(X.shape, dtype))
    assert isinstance(params, layers.NormParams)
    assert params.gamma.dtype == dtype
    assert (np.asarray(params.gamma) == np.ones(6)).all()
    if name == "rms_norm":
        assert params.beta is None
    else:
        assert params.beta.dtype == dtype
        assert not np.asarray(params.beta).any()


@every_norm
def test_without_parameters(name):
    options = {"scale": False} if name == "rms_norm" else {"scale": False, "shift": False}
    layer = NORMS[name](**options)
    params = layer.init(KEY, X)
    assert params == layers.NormParams(None, None)
    whole = NORMS[name]()

    @jax.jit
    def both(x):
        y, residuals = layer.forward(params, x)
        assert layer.backward(residuals, TARGET)[1] == layers.NormParams(None, None)
        return y, whole.forward(whole.init(KEY, X), x)[0]

    y, expected = both(X)
    np.testing.assert_allclose(y, expected, rtol=1e-14)


@every_norm
def test_in_a_network(name):
    """In a chain and repeated, between linear layers: value_and_grad is autodiff's.

    A bias right before a norm over tokens or examples would have a gradient of zero.
    """
    model = hg.chain(
        hg.linear(6, bias=False),
        NORMS[name](),
        hg.tanh(),
        hg.repeat(hg.residual(hg.chain(norm=NORMS[name](eps=0.1), up=hg.linear(6))), 2),
    )
    weights = np.array([0.5, 2.0, 0.0])

    @jax.jit
    def both(params, x):
        by_hand = hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1))
        autodiff = jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1))
        return by_hand(params, x, TARGET, weights), autodiff(params, x, TARGET, weights)

    assert_same(*both(drawn_params(model), X))


@pytest.mark.parametrize("name", [name for name in NORMS if name != "batch_norm"])
def test_examples_are_apart(name):
    """Each example's gradient is the one that it has alone."""
    model = hg.chain(hg.linear(6, bias=False), NORMS[name](), hg.linear(6))

    @jax.jit
    def both(params):
        _, factors = hg.value_and_factors(model, hg.l2_loss())(params, X, TARGET)
        _, alone = hg.value_and_factors(model, hg.l2_loss())(params, X[1:2], TARGET[1:2])
        return hg.materialize(factors, jnp.asarray([0.0, 1.0, 0.0])), hg.materialize(alone)

    assert_same(*both(drawn_params(model)))


@pytest.mark.parametrize("name", [name for name in NORMS if name != "batch_norm_inference"])
def test_recomputing(name):
    """The option reaches the rule: the input itself is kept, and the gradients are the same."""
    kept, saved = NORMS[name](residuals="recompute"), NORMS[name]()

    @jax.jit
    def both(params, x):
        (y, residuals), (expected, other) = kept.forward(params, x), saved.forward(params, x)
        assert residuals.X is x
        assert residuals.A is None
        gradients = (layer.backward(of, TARGET) for layer, of in ((kept, residuals), (saved, other)))
        return (y, expected), [hg.materialize(gradient) for gradient in gradients]

    (y, expected), gradients = both(drawn_params(saved), X)
    assert (np.asarray(y) == expected).all()
    assert_same(*gradients)


@every_norm
def test_params_of_the_wrong_kind(name):
    layer = NORMS[name]()
    for params in ((), (MEAN, MEAN), {"gamma": MEAN}, None, MEAN, hg.LinearParams(X, MEAN)):
        with pytest.raises(hg.InputError, match=rf"^{name}: params must be NormParams, got "):
            layer.forward(params, X)
    beta = None if name == "rms_norm" else MEAN
    with pytest.raises(hg.InputError, match=rf"^{name}: params\.gamma must be an array, got NoneType$"):
        layer.forward(layers.NormParams(None, beta), X)
    with pytest.raises(hg.InputError, match=rf"^{name}: params\.gamma must be None, got float64 \(6,\)$"):
        NORMS[name](scale=False).forward(layers.NormParams(MEAN, beta), X)
    other = MEAN if name == "rms_norm" else None
    with pytest.raises(hg.InputError, match=rf"^{name}: params\.beta must be (None|an array), got "):
        layer.forward(layers.NormParams(MEAN, other), X)
    with pytest.raises(
        hg.InputError, match=rf"^{name}_forward: gamma must have shape \(6,\) to meet X \(3, 4, 6\), got "
    ):
        layer.forward(layers.NormParams(MEAN[:5], beta), X)


@every_norm
@pytest.mark.parametrize("x", [X.astype(int), X[0, 0], None], ids=["integers", "vector", "None"])
def test_init_refuses(name, x):
    with pytest.raises(hg.InputError, match=rf"^{name}: x must .*, got "):
        NORMS[name]().init(KEY, x)


@pytest.mark.parametrize("groups", [0, 2.0, None])
def test_groups_is_a_positive_integer(groups):
    with pytest.raises(hg.InputError, match=r"^group_norm: groups must be a positive integer, got "):
        layers.group_norm(groups)
