"""What the gate of a mixture of experts chooses, what its loss says, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, together
from rules.refusals import refuses

from handgrad import rules
from handgrad.rules import load_balancing_loss_forward, top_k_gate_backward, top_k_gate_forward

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((3, 5, 4))


def test_of_equal_logits_the_first_are_chosen():
    """As jax.lax.top_k; and the slope is that of the chosen ones."""
    G, residuals = top_k_gate_forward(jnp.array([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), k=2)
    assert (G > 0).tolist() == [[True, True, False, False], [True, True, False, False]]
    assert G[1].tolist() == [0.5, 0.5, 0, 0]
    (dZ,) = top_k_gate_backward(residuals, jnp.array([[9.0, 1.0, 5.0, 5.0], [2.0, 0.0, 7.0, 7.0]]), k=2)
    assert dZ[1].tolist() == [0.5, -0.5, 0, 0]
    assert (dZ[0, 2:] == 0).all()


def test_a_row_of_the_cotangent_sums_to_zero():
    rows = [rules.top_k_gate.with_options(**options) for options in ({"k": 2}, {"k": 1, "softmax_over": "all"})]
    for _, (dZ,) in together((rule, np.cos(Z), (Z,)) for rule in rows):
        np.testing.assert_allclose(np.sum(dZ, -1), 0, atol=1e-15)
        assert np.any(dZ)


def test_one_expert_of_its_own_softmax_teaches_the_gate_nothing():
    ((G, (dZ,)),) = together([(rules.top_k_gate.with_options(k=1), np.cos(Z), (Z,))])
    assert set(np.unique(G)) == {0, 1}
    assert not np.any(dZ)


def test_every_expert_is_the_softmax():
    for softmax_over in ("chosen", "all"):
        G, _ = top_k_gate_forward(Z, k=4, softmax_over=softmax_over)
        assert_same(G, rules.softmax_forward(Z)[0])


def test_a_chosen_expert_whose_weight_underflows():
    """Its weight is 0, its gradient is 0, and nothing is NaN; the count still knows that it was chosen."""
    z = jnp.array([[0.0, -1e4, -2e4]])
    G, residuals = top_k_gate_forward(z, k=2)
    assert G.tolist() == [[1, 0, 0]]
    assert top_k_gate_backward(residuals, jnp.ones((1, 3)), k=2)[0].tolist() == [[0, 0, 0]]
    assert load_balancing_loss_forward(z, k=2)[1].F.tolist() == [[0.5, 0.5, 0]]


@pytest.mark.parametrize("k", [1, 2])
def test_the_loss_is_one_where_all_is_even_and_n_where_one_gets_everything(k):
    loss = jax.jit(lambda Z: load_balancing_loss_forward(Z, k=k)[0])
    even = (np.eye(4) + np.roll(np.eye(4), 1, 1) * (k - 1))[None] * 1e-9  # each expert as often, P even
    np.testing.assert_allclose(loss(even), 1, rtol=1e-8)
    if k == 1:
        np.testing.assert_allclose(loss(np.broadcast_to(1e3 * np.eye(4)[2], (2, 5, 4))), 4)


def test_over_the_batch_its_mean_is_the_switch_transformers():
    """N Σ f P, f and P over all tokens (Fedus et al., 2021, equations 4 to 6)."""
    C, _ = jax.jit(lambda Z: load_balancing_loss_forward(Z, k=1, counts="batch"))(Z)
    P = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    f = np.bincount(np.asarray(Z).argmax(-1).ravel(), minlength=4) / 15
    np.testing.assert_allclose(C.mean(), 4 * (f * P.mean((0, 1))).sum(), rtol=1e-13)


def test_an_example_of_the_batch_is_a_batch_of_its_own():
    dC = np.array([1.0, -2.0, 0.5])
    rules_of = {counts: rules.load_balancing_loss.with_options(k=2, counts=counts) for counts in ("example", "batch")}
    apart = [(b, rule) for b in range(3) for rule in rules_of.values()]
    alone = ((rule, dC[b : b + 1], (Z[b : b + 1],)) for b, rule in apart)
    (C, (dZ,)), *found = jax.tree.map(np.asarray, together([(rules_of["example"], dC, (Z,)), *alone]))
    for (b, _), one in zip(apart, found, strict=True):
        assert_same(one, (C[b : b + 1], (dZ[b : b + 1],)))


def test_k():
    for rule in (rules.top_k_gate, rules.load_balancing_loss):
        for k in (0, 2.0, True):
            refuses(rule, f"k must be a positive integer, got {k}", Z, k=k)
        refuses(rule, "k must be at most the number of experts, 4, got 5", Z, k=5)


def test_options_of_another_name():
    refuses(rules.top_k_gate, "softmax_over must be 'chosen' or 'all', got 'some'", Z, k=1, softmax_over="some")
    refuses(rules.load_balancing_loss, "counts must be 'example' or 'batch', got 1", Z, k=1, counts=1)
    refuses(rules.top_k_gate, "the logits Z must have shape (batch, …, features)…", Z[0, 0], k=1)
