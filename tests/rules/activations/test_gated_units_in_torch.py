"""PyTorch as a third party: glu, and gates of silu and gelu."""

import numpy as np
import pytest
from helpers import assert_same, optimized_jit, passes
from in_torch import F, assert_rules_agree, in_torch, torch

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)
U, V, DY = RNG.standard_normal((3, 5, 2, 4)) * 2
LARGE = np.array([[1e4, -1e4, 30.0, -30.0]])
X = RNG.standard_normal((5, 2, 8)) * 2
UNITS = {
    # torch.sigmoid's slope, σ (1 − σ), has lost three digits at 30 in float64.
    "glu": (rules.glu, lambda u: torch.exp(F.logsigmoid(u))),
    "swiglu": (rules.swiglu, F.silu),
    "geglu": (rules.geglu, F.gelu),
    "geglu-tanh": (rules.geglu.with_options(approximate=True), lambda u: F.gelu(u, approximate="tanh")),
}


def test_gated_units():
    arguments = {"": (U, V), " large": (LARGE, LARGE[:, ::-1].copy() / 1e4)}
    assert_rules_agree(
        {
            f"{name} {policy}{size}": (rule.with_options(residuals=policy), lambda u, v, gate=gate: gate(u) * v, args)
            for name, (rule, gate) in UNITS.items()
            for policy in ("recompute", "save")
            for size, args in arguments.items()
        }
    )


@pytest.mark.parametrize("policy", ["recompute", "save"])
def test_the_order_of_the_halves(policy):
    y, (dx, _) = optimized_jit(lambda dy, x: passes(layers.glu(residuals=policy), dy, (), x))(DY, X)
    assert_same((y, dx), in_torch(F.glu, X, dY=DY)[1])


@pytest.mark.parametrize("bias", [False, True])
def test_gated_mlp(bias):
    """Llama's mlp, written with torch's linears."""
    layer = layers.gated_mlp(6, bias=bias)
    gate, up, down = (torch.nn.Linear(n, m, bias=bias).double() for n, m in ((4, 6), (4, 6), (6, 4)))
    linears = [hg.LinearParams(*(p.detach().numpy().T for p in of.parameters())) for of in (gate, up, down)]
    run = optimized_jit(lambda dy, *arguments: passes(layer, dy, *arguments))
    y, (dx, grads) = run(DY, layers.GatedMlpParams(*linears), U)
    assert_same((y, dx), in_torch(lambda x: down(F.silu(gate(x)) * up(x)), U, dY=DY)[1])
    for found, linear in zip(grads, (gate, up, down), strict=True):
        assert_same([p for p in found if p is not None], [p.grad.numpy().T for p in linear.parameters()])
