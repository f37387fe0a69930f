"""Gated units as layers: which half opens the gate, and the mlp of three linears."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, 2, 4)))
TARGET = jnp.asarray(RNG.standard_normal((3, 2, 4)))
WEIGHTS = jnp.asarray([0.5, -2.0, 1.0])

HALVES = {
    "glu": (layers.glu, jax.nn.sigmoid),
    "swiglu": (layers.swiglu, jax.nn.silu),
    "geglu": (layers.geglu, lambda u: jax.nn.gelu(u, approximate=False)),
    "geglu-tanh": (lambda **policy: layers.geglu(approximate=True, **policy), jax.nn.gelu),
}


@pytest.mark.parametrize("policy", ["recompute", "save"])
@pytest.mark.parametrize(("make", "gate"), HALVES.values(), ids=HALVES.keys())
def test_the_second_half_opens_the_gate(make, gate, policy):
    layer = make(residuals=policy)

    @jax.jit
    def both(x, dy):
        expected, pullback = jax.vjp(lambda x: x[..., :2] * gate(x[..., 2:]), x)
        y, residuals = layer.forward((), x)
        dx, dparams = layer.backward(residuals, dy)
        assert (layer.init(KEY, x), dparams) == ((), ())
        return (y, dx), (expected, *pullback(dy))

    assert_same(*both(X, TARGET[..., :2]))


def test_glu_is_jax_nn_glu():
    assert_same(layers.glu().forward((), X)[0], jax.nn.glu(X))


@pytest.mark.parametrize("make", [layers.glu, layers.swiglu, layers.geglu])
def test_two_halves_need_an_even_number(make):
    name = make.__name__
    with pytest.raises(
        hg.InputError, match=rf"^{name}: x must have an even number of features.*, got float64 \(3, 2, 3\)"
    ):
        make().forward((), X[..., :3])
    with pytest.raises(hg.InputError, match=rf"^{name}: x must have a floating-point dtype, got int64 \(3, 2, 4\)$"):
        make().forward((), X.astype(int))
    with pytest.raises(hg.InputError, match=f"^{name}: residuals must be 'recompute' or 'save', got 'mask'$"):
        make(residuals="mask")


def drawn(layer):
    """Parameters of the layer, none of them zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(layer.init, KEY, X))


GATES = {
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "gelu": lambda u: jax.nn.gelu(u, approximate=False),
    "gelu_tanh": jax.nn.gelu,
}


def mlp(act, params, x):
    def apply(W, b, x):
        return x @ W + (0 if b is None else jnp.broadcast_to(b, (*x.shape[:-1], len(b))))

    return apply(*params.down, act(apply(*params.gate, x)) * apply(*params.up, x))


@pytest.mark.parametrize(
    ("gate", "bias", "policy"),
    [
        ("silu", False, "recompute"),
        ("silu", True, "save"),
        ("sigmoid", False, "save"),
        ("gelu", True, "recompute"),
        ("gelu_tanh", False, "recompute"),
    ],
)
def test_gated_mlp(gate, bias, policy):
    """Value, dx and all gradients between two other layers, against jax.vjp of plain jax.numpy."""
    layer = layers.gated_mlp(5, gate, bias=bias, residuals=policy)
    params = drawn(layer)

    @jax.jit
    def both(params, x, dy):
        y, residuals = layer.forward(params, x)
        dx, factors = layer.backward(residuals, dy)
        expected, pullback = jax.vjp(lambda params, x: mlp(GATES[gate], params, x), params, x)
        return (y, hg.materialize(factors), dx), (expected, *pullback(dy))

    assert_same(*both(params, X, TARGET))


def test_llamas_block():
    """As a residual, and repeated, under value_and_grad."""
    model = hg.repeat(hg.residual(layers.gated_mlp(6)), 2)
    params = drawn(model)
    assert params.gate.W.shape == params.up.W.shape == (2, 4, 6)
    assert params.down.W.shape == (2, 6, 4)

    @jax.jit
    def both(params, x):
        by_hand = hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1))
        autodiff = jax.value_and_grad(hg.objective(model, hg.squared_error()), argnums=(0, 1))
        return by_hand(params, x, TARGET, WEIGHTS), autodiff(params, x, TARGET, WEIGHTS)

    assert_same(*both(params, X))


def test_init():
    layer = layers.gated_mlp(5, bias=True, n_out=3)
    params = layer.init(KEY, jax.ShapeDtypeStruct((2, 7, 4), jnp.float32))
    assert type(params) is layers.GatedMlpParams
    assert all(type(p) is hg.LinearParams for p in params)
    assert [(p.W.shape, p.b.shape) for p in params] == [((4, 5), (5,)), ((4, 5), (5,)), ((5, 3), (3,))]
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert (np.asarray(params.gate.W) != params.up.W).any()
    assert jax.eval_shape(layers.gated_mlp(5).init, KEY, X).up.b is None


def test_x_is_kept_once():
    layer = layers.gated_mlp(5)
    _, residuals = layer.forward(drawn(layer), X)
    assert residuals.gate.X is residuals.up.X is X


def test_the_checker_finds_the_wrong_part():
    layer = layers.gated_mlp(5)
    params = drawn(layer)
    parts = list(layer.parts(params, X))
    assert [name for name, *_ in parts] == ["gate", "up", "unit", "down"]
    for name, part, own, seen, key in parts:
        report = hg.check_layer(part, seen, params=own, key=key, name=name, control=False, transforms=())
        report.raise_if_failed()
    y, _ = layer.forward(params, X)
    assert_same(parts[-1][1].forward(parts[-1][2], parts[-1][3])[0], y)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layers.gated_mlp(0), "gated_mlp: n_hidden must be a positive integer, got 0"),
        (
            lambda: layers.gated_mlp(5, "relu"),
            "gated_mlp: gate must be 'sigmoid', 'silu', 'gelu' or 'gelu_tanh', got 'relu'",
        ),
        (
            lambda: layers.gated_mlp(5, residuals="mask"),
            "gated_mlp: residuals must be 'recompute' or 'save', got 'mask'",
        ),
        (lambda: layers.gated_mlp(5, n_out=0), "gated_mlp: n_out must be a positive integer, got 0"),
        (
            lambda: layers.gated_mlp(5).forward(hg.LinearParams(X), X),
            "gated_mlp: params must be GatedMlpParams, got LinearParams",
        ),
        (lambda: layers.gated_mlp(5).backward((), X), "gated_mlp: residuals must be GatedMlpResiduals, got tuple"),
        (
            lambda: layers.gated_mlp(5).forward(drawn(layers.gated_mlp(6)), X),
            r"in layer gate: linear: params.W must have shape \(4, 5\) \(n_in, n_out\), got float64 \(4, 6\)",
        ),
        (
            lambda: layers.gated_mlp(5, n_out=4).forward(drawn(layers.gated_mlp(5, n_out=2)), X),
            r"in layer down: linear: params.W must have shape \(5, 4\) \(n_in, n_out\), got float64 \(5, 2\)",
        ),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(hg.InputError, match=f"^{sentence}$"):
        call()
