"""Gated units as layers: which half opens the gate, and the mlp of three linears."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_layers, assert_refused, assert_same, both_passes, drawn

import handgrad as hg
from handgrad.layers import GatedMlpParams, gated_mlp, geglu, glu, swiglu

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X, TARGET = (jax.device_put(RNG.standard_normal((3, 2, 4))) for _ in range(2))
GATES = {
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "gelu": lambda u: jax.nn.gelu(u, approximate=False),
    "gelu_tanh": jax.nn.gelu,
}
MLP = gated_mlp(5)


def test_the_second_half_opens_the_gate():
    def halves(gate):
        return lambda x: x[..., :2] * GATES[gate](x[..., 2:])

    rows = {"glu": (glu(), jax.nn.glu)}
    for policy in ("recompute", "save"):
        rows |= {
            f"glu, {policy}": (glu(residuals=policy), halves("sigmoid")),
            f"swiglu, {policy}": (swiglu(residuals=policy), halves("silu")),
            f"geglu, {policy}": (geglu(residuals=policy), halves("gelu")),
            f"geglu, tanh, {policy}": (geglu(approximate=True, residuals=policy), halves("gelu_tanh")),
        }
    assert_layers(rows, X)


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
    layer = gated_mlp(5, gate, bias=bias, residuals=policy)
    assert_same(*both_passes(layer, lambda params, x: mlp(GATES[gate], params, x))(drawn(layer, X), X, TARGET))


def test_init():
    layer = gated_mlp(5, bias=True, n_out=3)
    params = layer.init(KEY, jax.ShapeDtypeStruct((2, 7, 4), jnp.float32))
    assert type(params) is GatedMlpParams
    assert all(type(p) is hg.LinearParams for p in params)
    assert [(p.W.shape, p.b.shape) for p in params] == [((4, 5), (5,)), ((4, 5), (5,)), ((5, 3), (3,))]
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert (np.asarray(params.gate.W) != params.up.W).any()
    assert jax.eval_shape(gated_mlp(5).init, KEY, X).up.b is None


def test_x_is_kept_once():
    _, residuals = MLP.forward(drawn(MLP, X), X)
    assert residuals.gate.X is residuals.up.X is X


def test_a_checker_finds_its_parts():
    params = drawn(MLP, X)
    parts = list(MLP.parts(params, X))
    assert [part.name for part in parts] == ["gate", "up", "unit", "down"]
    for name, part, own, seen, key in parts:
        hg.check_layer(part, seen, params=own, key=key, name=name, control=False, transforms=()).raise_if_failed()
    assert_same(parts[-1].layer.forward(parts[-1].params, parts[-1].x)[0], MLP.forward(params, X)[0])


def test_refusals():
    four, two = gated_mlp(5, n_out=4), gated_mlp(5, n_out=2)
    gates = "'sigmoid', 'silu', 'gelu' or 'gelu_tanh'"
    shape = r"linear: params.W must have shape \({}\) \(n_in, n_out\), got float64 \({}\)"
    rows = {
        "gated_mlp: n_hidden must be a positive integer, got 0": lambda: gated_mlp(0),
        f"gated_mlp: gate must be {gates}, got 'relu'": lambda: gated_mlp(5, "relu"),
        "gated_mlp: residuals must be 'recompute' or 'save', got 'mask'": lambda: gated_mlp(5, residuals="mask"),
        "gated_mlp: n_out must be a positive integer, got 0": lambda: gated_mlp(5, n_out=0),
        "gated_mlp: params must be GatedMlpParams, got LinearParams": lambda: MLP.forward(hg.LinearParams(X), X),
        "gated_mlp: residuals must be GatedMlpResiduals, got tuple": lambda: MLP.backward((), X),
        f"in layer gate: {shape.format('4, 5', '4, 6')}": lambda: MLP.forward(drawn(gated_mlp(6), X), X),
        f"in layer down: {shape.format('5, 4', '5, 2')}": lambda: four.forward(drawn(two, X), X),
    }
    even = r"x must have an even number of features.*, got float64 \(3, 2, 3\)"
    for make in (glu, swiglu, geglu):
        rows |= {
            f"{make.__name__}: {even}": lambda make=make: make().forward((), X[..., :3]),
            rf"{make.__name__}: x must have a floating-point dtype, got int64 \(3, 2, 4\)": (
                lambda make=make: make().forward((), X.astype(int))
            ),
            f"{make.__name__}: residuals must be 'recompute' or 'save', got 'mask'": (
                lambda make=make: make(residuals="mask")
            ),
        }
    assert_refused(rows)
