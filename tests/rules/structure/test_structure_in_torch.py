"""PyTorch as a third party: torch.einsum, and LoRA, a mixture of experts and a reversible block in plain torch."""

import jax
import numpy as np
import pytest
from helpers import drawn, passes
from in_torch import F, assert_close, assert_rules_agree, in_torch, normal, torch

import handgrad as hg
from handgrad import layers, rules

SUBSCRIPTS = {
    "ij,jk->ik": ((2, 3), (3, 4)),
    "ij,jk": ((2, 3), (3, 4)),
    "bthd,bshd->bhts": ((2, 3, 2, 4), (2, 5, 2, 4)),
    "ii,ij->j": ((3, 3), (3, 2)),
    "ijl,mjk->mk": ((2, 3, 2), (2, 3, 4)),
    "...ij,...jk->...ik": ((1, 2, 3), (5, 3, 4)),
    "ij,ij->": ((2, 3), (2, 3)),
}


def test_einsum_and_contraction():
    def row(rule, subscripts, *shapes):
        function = lambda A, B: torch.einsum(subscripts, A, B)  # noqa: E731
        arguments = tuple(normal(*shape, seed=seed) for seed, shape in enumerate(shapes, 2))
        return rule.with_options(subscripts=subscripts), function, arguments

    rows = [row(rules.einsum, subscripts, *shapes) for subscripts, shapes in SUBSCRIPTS.items()]
    assert_rules_agree([*rows, row(rules.contraction, "bthi,hio->btho", (3, 2, 2, 4), (2, 4, 3))])


def test_lora():
    def plain(X, W, A, B, b=None):
        return F.linear(X, W.T, b) + 0.7 * (X @ A) @ B

    arguments = tuple(normal(*shape) for shape in ((4, 3, 6), (6, 5), (6, 2), (2, 5), (5,)))
    each = [rules.lora_linear.with_options(scale=0.7, residuals=kept) for kept in ("save", "recompute")]
    assert_rules_agree([(rule, plain, arguments[:n]) for rule in each for n in (4, 5)])


def top_k_gate(k, softmax_over):
    def plain(Z):
        top, chosen = torch.topk(Z, k)
        weights = F.softmax(top, -1) if softmax_over == "chosen" else F.softmax(Z, -1).gather(-1, chosen)
        return torch.zeros_like(Z).scatter(-1, chosen, weights)

    return rules.top_k_gate.with_options(k=k, softmax_over=softmax_over), plain


def load_balancing_loss(counts):
    def plain(Z):
        chosen = F.one_hot(torch.topk(Z, 2)[1], 4).sum(-2).double()
        f = chosen.mean(1) / 2 if counts == "example" else chosen.mean((0, 1))[None] / 2
        return 4 * (f * F.softmax(Z, -1).mean(1)).sum(-1)

    return rules.load_balancing_loss.with_options(k=2, counts=counts), plain


def test_gates_and_their_balance():
    gates = [top_k_gate(*of) for of in ((2, "chosen"), (1, "all"), (2, "all"), (4, "chosen"))]
    rows = [*gates, load_balancing_loss("example"), load_balancing_loss("batch")]
    assert_rules_agree([(*row, (normal(3, 5, 4),)) for row in rows])


def experts(gate, W, b, V, c, x):
    """Each token goes to its own experts alone, in a Python loop."""
    rows = []
    for row in x.reshape(-1, 6):
        top, chosen = torch.topk(row @ gate, 2)
        outputs = [F.relu(row @ W[e] + b[e]) @ V[e] + c[e] for e in chosen]
        rows.append(F.softmax(top, -1) @ torch.stack(outputs))
    return torch.stack(rows).reshape(x.shape)


def reversible(W, b, V, c, x):
    x1, x2 = x.chunk(2, -1)
    for i in range(3):
        x1 = x1 + torch.tanh(x2 @ W[i] + b[i])
        x2 = x2 + x1 @ V[i] + c[i]
    return torch.cat([x1, x2], -1)


LAYERS = {
    "experts": (
        layers.mixture_of_experts(hg.chain(hg.linear(5), hg.relu(), hg.linear(6)), 4, k=2),
        experts,
        normal(2, 3, 6),
    ),
    "reversible": (
        layers.reversible_sequence(hg.chain(hg.linear(3), hg.tanh()), hg.linear(3), 3),
        reversible,
        normal(4, 6),
    ),
}


@pytest.mark.parametrize(("layer", "plain", "x"), LAYERS.values(), ids=LAYERS)
def test_layers(layer, plain, x):
    params = drawn(layer, x)
    dy, (expected, *cotangents) = in_torch(plain, *map(np.asarray, jax.tree.leaves(params)), x)
    y, (dx, grads) = jax.jit(lambda dy, *arguments: passes(layer, dy, *arguments))(dy, params, x)
    assert_close((y, grads, dx), (expected, *cotangents))
