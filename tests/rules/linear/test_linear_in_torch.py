"""PyTorch's linear on the same numbers, alone and in an mlp of its own composition."""

import jax
import numpy as np
from helpers import assert_same
from in_torch import F, assert_rules_agree, torch

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)


def test_linear():
    """torch keeps the transposed weight, (n_out, n_in)."""
    W, b = RNG.standard_normal((4, 3)), RNG.standard_normal(3)
    rows = {}
    for middle in ((), (3,), (2, 3)):
        X = RNG.standard_normal((5, *middle, 4))
        rows[f"{middle}"] = rules.linear, lambda x, W, b: F.linear(x, W.T, b), (X, W, b)
        rows[f"{middle} without b"] = rules.linear, lambda x, W, b: F.linear(x, W.T), (X, W, None)
    assert_rules_agree(rows)


def test_a_network():
    """Not only rule by rule: an mlp with both libraries' own composition."""
    model = hg.mlp((4, 5, 3), hg.gelu())
    x, labels = RNG.standard_normal((6, 4)) * 2, np.array([0, 0, 1, 1, 2, 0])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, np.float64))
    params = jax.tree.map(lambda p: RNG.standard_normal(p.shape), shapes)
    value, grads = jax.jit(hg.value_and_grad(model, hg.softmax_cross_entropy(0.1)))(params, x, labels)
    W, b, V, c = leaves = [torch.tensor(p, requires_grad=True) for p in jax.tree.leaves(params)]
    loss = F.cross_entropy(F.gelu(torch.tensor(x) @ W + b) @ V + c, torch.tensor(labels), label_smoothing=0.1)
    loss.backward()
    assert_same([value, *jax.tree.leaves(grads)], [loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)])
