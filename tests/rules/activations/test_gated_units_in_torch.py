"""PyTorch as a third party: glu, and gates of silu and gelu."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers, rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
U, V, DY = RNG.standard_normal((3, 5, 2, 4)) * 2
LARGE = np.array([[1e4, -1e4, 30.0, -30.0]])
X = RNG.standard_normal((5, 2, 8)) * 2
UNITS = {
    # torch.sigmoid's slope, σ (1 − σ), has lost three digits at 30 in float64.
    "glu": (rules.glu_forward, rules.glu_backward, {}, lambda u: torch.exp(F.logsigmoid(u))),
    "swiglu": (rules.swiglu_forward, rules.swiglu_backward, {}, F.silu),
    "geglu": (rules.geglu_forward, rules.geglu_backward, {}, F.gelu),
    "geglu-tanh": (
        rules.geglu_forward,
        rules.geglu_backward,
        {"approximate": True},
        lambda u: F.gelu(u, approximate="tanh"),
    ),
}


def in_torch(function, dY, *arrays):
    leaves = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]
    Y = function(*leaves)
    Y.backward(torch.tensor(dY))
    return Y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)


@pytest.mark.parametrize("policy", ["recompute", "save"])
@pytest.mark.parametrize(("forward", "backward", "options", "gate"), UNITS.values(), ids=UNITS.keys())
def test_gated_unit(forward, backward, options, gate, policy):
    for u, v, dY in ((U, V, DY), (LARGE, LARGE[:, ::-1].copy() / 1e4, np.array([[0.5, -2.0, 3.0, 1.0]]))):
        Y, residuals = forward(jnp.asarray(u), jnp.asarray(v), residuals=policy, **options)
        found = (Y, *backward(residuals, jnp.asarray(dY), **options))
        assert_same(found, in_torch(lambda u, v: gate(u) * v, dY, u, v))


@pytest.mark.parametrize("policy", ["recompute", "save"])
def test_the_order_of_the_halves(policy):
    layer = layers.glu(residuals=policy)
    y, residuals = layer.forward((), jnp.asarray(X))
    assert_same((y, layer.backward(residuals, jnp.asarray(DY))[0]), in_torch(F.glu, DY, X))


@pytest.mark.parametrize("bias", [False, True])
def test_gated_mlp(bias):
    """Llama's mlp, written with torch's linears."""
    layer = layers.gated_mlp(6, bias=bias)
    gate, up, down = (torch.nn.Linear(n, m, bias=bias).double() for n, m in ((4, 6), (4, 6), (6, 4)))
    params = layers.GatedMlpParams(
        *(
            hg.LinearParams(*(jnp.asarray(p.detach().numpy().T) for p in linear.parameters()))
            for linear in (gate, up, down)
        )
    )
    x = torch.tensor(U, requires_grad=True)
    expected = down(F.silu(gate(x)) * up(x))
    expected.backward(torch.tensor(DY))
    y, residuals = layer.forward(params, jnp.asarray(U))
    dx, factors = layer.backward(residuals, jnp.asarray(DY))
    assert_same((y, dx), (expected.detach().numpy(), x.grad.numpy()))
    for found, linear in zip(hg.materialize(factors), (gate, up, down), strict=True):
        assert_same([p for p in found if p is not None], [p.grad.numpy().T for p in linear.parameters()])
