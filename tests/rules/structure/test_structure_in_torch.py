"""PyTorch as a third party: torch.einsum, and LoRA, a mixture of experts and a reversible block in plain torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_torch import F, torch

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)


def close(found, expected, rtol=1e-12):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= rtol * np.abs(expected).max(initial=1e-300)


def in_torch(function, cotangent, *arguments):
    """function(*arguments), and the cotangent pulled back to all of them, by torch's autograd."""
    leaves = [torch.tensor(np.asarray(a), requires_grad=True) for a in arguments]
    value = function(*leaves)
    value.backward(torch.tensor(np.asarray(cotangent)))
    return value.detach().numpy(), [leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize(
    ("subscripts", "a", "b"),
    [
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("ij,jk", (2, 3), (3, 4)),
        ("bthd,bshd->bhts", (2, 3, 2, 4), (2, 5, 2, 4)),
        ("ii,ij->j", (3, 3), (3, 2)),
        ("ijl,mjk->mk", (2, 3, 2), (2, 3, 4)),
        ("...ij,...jk->...ik", (1, 2, 3), (5, 3, 4)),
        ("ij,ij->", (2, 3), (2, 3)),
    ],
)
def test_einsum(subscripts, a, b):
    A, B = RNG.standard_normal(a), RNG.standard_normal(b)
    Y, residuals = rules.einsum_forward(jnp.asarray(A), jnp.asarray(B), subscripts=subscripts)
    dY = RNG.standard_normal(Y.shape)
    expected, cotangents = in_torch(lambda A, B: torch.einsum(subscripts, A, B), dY, A, B)
    close(Y, expected)
    for found, theirs in zip(
        rules.einsum_backward(residuals, jnp.asarray(dY), subscripts=subscripts), cotangents, strict=True
    ):
        close(found, theirs)


def test_contraction():
    X, W, dY = (RNG.standard_normal(s) for s in [(3, 2, 2, 4), (2, 4, 3), (3, 2, 2, 3)])
    Y, residuals = rules.contraction_forward(jnp.asarray(X), jnp.asarray(W), subscripts="bthi,hio->btho")
    dX, dW = rules.contraction_backward(residuals, jnp.asarray(dY), subscripts="bthi,hio->btho")
    expected, cotangents = in_torch(lambda X, W: torch.einsum("bthi,hio->btho", X, W), dY, X, W)
    for found, theirs in zip((Y, dX, dW.sum()), (expected, *cotangents), strict=True):
        close(found, theirs)


@pytest.mark.parametrize("residuals", ["save", "recompute"])
@pytest.mark.parametrize("bias", [True, False])
def test_lora(bias, residuals):
    shapes = [(4, 3, 6), (6, 5), (6, 2), (2, 5), (5,)][: 5 if bias else 4]
    arguments, dY = [RNG.standard_normal(s) for s in shapes], RNG.standard_normal((4, 3, 5))

    def plain(X, W, A, B, b=None):
        return F.linear(X, W.T, b) + 0.7 * (X @ A) @ B

    Y, kept = rules.lora_linear_forward(*map(jnp.asarray, arguments), scale=0.7, residuals=residuals)
    found = hg.materialize(rules.lora_linear_backward(kept, jnp.asarray(dY), scale=0.7))
    expected, cotangents = in_torch(plain, dY, *arguments)
    close(Y, expected)
    for mine, theirs in zip([c for c in found if c is not None], cotangents, strict=True):
        close(mine, theirs)


@pytest.mark.parametrize(("k", "softmax_over"), [(2, "chosen"), (1, "all"), (2, "all"), (4, "chosen")])
def test_top_k_gate(k, softmax_over):
    Z, dG = RNG.standard_normal((3, 5, 4)), RNG.standard_normal((3, 5, 4))

    def plain(Z):
        top, chosen = torch.topk(Z, k)
        weights = F.softmax(top, -1) if softmax_over == "chosen" else F.softmax(Z, -1).gather(-1, chosen)
        return torch.zeros_like(Z).scatter(-1, chosen, weights)

    G, residuals = rules.top_k_gate_forward(jnp.asarray(Z), k=k, softmax_over=softmax_over)
    (dZ,) = rules.top_k_gate_backward(residuals, jnp.asarray(dG), k=k, softmax_over=softmax_over)
    expected, (expected_dZ,) = in_torch(plain, dG, Z)
    close(G, expected)
    close(dZ, expected_dZ)


@pytest.mark.parametrize("counts", ["example", "batch"])
def test_load_balancing_loss(counts):
    Z, dC = RNG.standard_normal((3, 5, 4)), RNG.standard_normal(3)

    def plain(Z):
        chosen = F.one_hot(torch.topk(Z, 2)[1], 4).sum(-2).double()
        f = chosen.mean(1) / 2 if counts == "example" else chosen.mean((0, 1))[None] / 2
        return 4 * (f * F.softmax(Z, -1).mean(1)).sum(-1)

    C, residuals = rules.load_balancing_loss_forward(jnp.asarray(Z), k=2, counts=counts)
    (dZ,) = rules.load_balancing_loss_backward(residuals, jnp.asarray(dC), k=2, counts=counts)
    expected, (expected_dZ,) = in_torch(plain, dC, Z)
    close(C, expected)
    close(dZ, expected_dZ)


def test_mixture_of_experts():
    """Each token goes to its own experts alone, in a Python loop."""
    layer = layers.mixture_of_experts(hg.chain(hg.linear(5), hg.relu(), hg.linear(6)), 4, k=2)
    x, dy = jnp.asarray(RNG.standard_normal((2, 3, 6))), RNG.standard_normal((2, 3, 6))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    params = jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)), shapes)

    def plain(gate, W, b, V, c, x):
        rows = []
        for row in x.reshape(-1, 6):
            top, chosen = torch.topk(row @ gate, 2)
            weights = F.softmax(top, -1)
            rows.append(
                sum(g * (F.relu(row @ W[e] + b[e]) @ V[e] + c[e]) for g, e in zip(weights, chosen, strict=True))
            )
        return torch.stack(rows).reshape(x.shape)

    y, residuals = layer.forward(params, x)
    dx, factors = layer.backward(residuals, jnp.asarray(dy))
    expected, cotangents = in_torch(plain, dy, *jax.tree.leaves(params), x)
    close(y, expected)
    for mine, theirs in zip([*jax.tree.leaves(hg.materialize(factors)), dx], cotangents, strict=True):
        close(mine, theirs)


def test_reversible():
    layer = layers.reversible_sequence(hg.chain(hg.linear(3), hg.tanh()), hg.linear(3), 3)
    x, dy = jnp.asarray(RNG.standard_normal((4, 6))), RNG.standard_normal((4, 6))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    params = jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)), shapes)

    def plain(W, b, V, c, x):
        x1, x2 = x.chunk(2, -1)
        for i in range(3):
            x1 = x1 + torch.tanh(x2 @ W[i] + b[i])
            x2 = x2 + x1 @ V[i] + c[i]
        return torch.cat([x1, x2], -1)

    y, residuals = layer.forward(params, x)
    dx, grads = layer.backward(residuals, jnp.asarray(dy))
    expected, cotangents = in_torch(plain, dy, *jax.tree.leaves(params), x)
    close(y, expected)
    for mine, theirs in zip([*jax.tree.leaves(grads), dx], cotangents, strict=True):
        close(mine, theirs)
