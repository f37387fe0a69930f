import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.layers import LoraParams

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((4, 3, 6)), RNG.standard_normal((4, 3, 5))


def drawn(layer, x=X):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: rng.standard_normal(p.shape), jax.eval_shape(layer.init, KEY, x))


def test_init():
    """It begins as the linear layer that it is added to."""
    for bias, dtype in ((True, jnp.bfloat16), (False, jnp.float32), (True, jnp.float64)):
        layer = layers.lora_linear(5, rank=2, bias=bias)
        params = jax.eval_shape(layer.init, KEY, jax.ShapeDtypeStruct(X.shape, dtype))
        assert isinstance(params, LoraParams)
        assert (params.W.shape, params.A.shape, params.B.shape) == ((6, 5), (6, 2), (2, 5))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
        assert (params.b is not None) == bias

    @jax.jit
    def begin(x):
        layer, linear = layers.lora_linear(5, rank=2), hg.linear(5)
        params = linear.init(KEY, x)
        added = layers.add_lora(KEY, params, 2)
        same = (layer.forward(added, x)[0], layers.merge_lora(added)), (linear.forward(params, x)[0], params)
        return same, layer.init(KEY, x), added

    same, *both = begin(X)
    assert_same(*same, 0)
    for params in both:
        assert np.asarray(params.A).any()
        assert not np.asarray(params.B).any()


@pytest.mark.parametrize("alpha", [None, 4, 0.5])
def test_merged_it_is_the_same_linear_layer(alpha):
    layer = layers.lora_linear(5, rank=2, alpha=alpha)

    @jax.jit
    def both(params):
        merged = layers.merge_lora(params, alpha=alpha)
        assert isinstance(merged, hg.LinearParams)
        y, residuals = layer.forward(params, X)
        dx, factors = layer.backward(residuals, DY)
        expected, of_linear = hg.linear(5).forward(merged, X)
        expected_dx, linear_factors = hg.linear(5).backward(of_linear, DY)
        # A's and B's by way of dW, which our backward pass doesn't take.
        dW, scale = linear_factors.W.sum(), (2 if alpha is None else alpha) / 2
        of_adapters = scale * dW @ params.B.T, scale * params.A.T @ dW
        sums = factors.W.sum(), factors.A.sum(), factors.B.sum()
        return (y, dx, sums), (expected, expected_dx, (dW, *of_adapters))

    assert_same(*both(drawn(layer)))


@pytest.mark.parametrize("residuals", ["save", "recompute"])
def test_a_chain_against_autodiff(residuals):
    model = hg.chain(
        layers.lora_linear(4, rank=2, alpha=3.0, residuals=residuals),
        hg.tanh(),
        hg.repeat(layers.lora_linear(4, rank=1, bias=False, residuals=residuals), 3),
        hg.linear(5),
    )

    @jax.jit
    def both(params, x):
        autodiff = jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1))
        return hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1))(params, x, DY), autodiff(params, x, DY)

    assert_same(*both(drawn(model), X))


def test_what_is_kept():
    for residuals, thin in (("save", 1), ("recompute", 0)):
        layer = layers.lora_linear(5, rank=2, residuals=residuals)
        kept = jax.tree.leaves(jax.eval_shape(layer.forward, drawn(layer), X)[1])
        assert [a.shape for a in kept].count((4, 3, 2)) == thin


def test_adapters_alone_learn_and_no_dw_is_multiplied():
    """optax freezes the rest; the compiled step has no product of W's shape, forwards or backwards."""
    model = hg.chain(first=layers.lora_linear(8, rank=2), activation=hg.tanh(), last=layers.lora_linear(5, rank=2))
    params = drawn(model)
    mask = layers.is_adapter(params)
    assert mask["first"] == LoraParams(False, True, True, False)
    assert layers.is_adapter(hg.LinearParams(X, None)) == hg.LinearParams(False, None)
    labels = jax.tree.map(lambda adapter: "learn" if adapter else "freeze", mask)
    optimizer = optax.multi_transform({"learn": optax.sgd(0.1), "freeze": optax.set_to_zero()}, labels)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(hg.grad(model, hg.l2_loss())(params, X, DY), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    after, _ = step(params, state)
    for moved, one, two in zip(*map(jax.tree.leaves, (mask, params, after)), strict=True):
        assert (np.asarray(one) != two).any() == moved
    program = step.lower(params, state).compile().as_text()
    for shape in ("f64[6,8]", "f64[8,5]"):
        products = [
            line for line in program.splitlines() if f"= {shape}" in line and (" dot(" in line or "gemm" in line)
        ]
        assert not products, products


def test_refusals():
    for rank in (0, 1.5, None):
        with pytest.raises(hg.InputError, match=r"^lora_linear: rank must be a positive integer, got "):
            layers.lora_linear(5, rank=rank)
    for alpha in (0, -1.0, "1"):
        with pytest.raises(hg.InputError, match=r"^lora_linear: alpha must be a positive number, got "):
            layers.lora_linear(5, rank=2, alpha=alpha)
    layer = layers.lora_linear(5, rank=2)
    params = drawn(layer)
    for wrong in ((), None, hg.LinearParams(params.W, params.b)):
        with pytest.raises(hg.InputError, match=r"^lora_linear: params must be LoraParams, got "):
            layer.forward(wrong, X)
    with pytest.raises(hg.InputError, match=r"^lora_linear: params.A must have shape \(6, 2\), got "):
        layer.forward(drawn(layers.lora_linear(5, rank=3)), X)
    with pytest.raises(hg.InputError, match=r"^lora_linear: params.b must be an array, got NoneType"):
        layer.forward(params._replace(b=None), X)
    with pytest.raises(hg.InputError, match=r"^merge_lora: params must be LoraParams, got LinearParams"):
        layers.merge_lora(hg.LinearParams(params.W))
    with pytest.raises(hg.InputError, match=r"^add_lora: params must be LinearParams, got LoraParams"):
        layers.add_lora(KEY, params, 2)
