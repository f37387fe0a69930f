"""A model that ends in a projection, under a loss of log-probabilities: gradients, factors, folds, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, drawn

import handgrad as hg
from handgrad import layers
from handgrad.cases.linear import linear

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((3, 2, 4, 5)), RNG.integers(0, 7, (3, 2, 4))
LABELS[0, 1, 2:] = -100
REFERENCE, WEIGHTS = np.where(LABELS < 0, 0, -RNG.gamma(2, 1, LABELS.shape)), np.array([0.5, -2.0, 1.0])
TARGET = layers.LogProbabilityTarget(LABELS, REFERENCE)
MODEL = hg.chain(hidden=hg.linear(6), tanh=hg.tanh(), head=layers.projection(7))
LOSS = layers.linear_log_probability(hg.dpo_loss(0.5), chunk=5, ignore_index=-100, softcap=3.0)


def plain(params, x, labels, reference):
    """Losses of pairs, in plain JAX."""
    hidden, head = params["hidden"], params["head"]
    Z = linear(jnp.tanh(linear(x, *hidden)), *head)
    L = jax.nn.log_softmax(3 * jnp.tanh(Z / 3))
    L = jnp.take_along_axis(L, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    h = jnp.sum(jnp.where(labels < 0, 0, L) - reference, -1) @ jnp.array([1.0, -1.0])
    return -jax.nn.log_sigmoid(0.5 * h)


def test_gradients_and_folds():
    """By hand, by autodiff of the objective and of plain JAX; each pair's own gradient; the norms of all."""

    @jax.jit
    def every_way(params):
        by_hand = hg.value_and_grad(MODEL, LOSS)(params, X, TARGET, WEIGHTS)
        autodiff = jax.value_and_grad(hg.objective(MODEL, LOSS))(params, X, TARGET, WEIGHTS)
        expected = jax.value_and_grad(lambda p: WEIGHTS @ plain(p, X, LABELS, REFERENCE))(params)
        losses, factors = hg.value_and_factors(MODEL, LOSS)(params, X, TARGET)
        each = jax.vmap(jax.grad(lambda p, *pair: plain(p, *(a[None] for a in pair))[0]), in_axes=(None, 0, 0, 0))(
            params, X, LABELS, REFERENCE
        )
        norms = sum(jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(each))
        ours = hg.materialize(factors, WEIGHTS), hg.per_example_grads(factors), hg.sq_norms(factors), losses
        theirs = expected[1], each, norms, plain(params, X, LABELS, REFERENCE)
        return (by_hand, autodiff, ours), (expected, expected, theirs)

    assert_same(*every_way(drawn(MODEL, X, 0.5)), 1e-11)


def test_bad_input():
    prediction, _ = layers.projection(7).forward(drawn(layers.projection(7), X), X)
    for run, sentence in (
        (lambda: LOSS.forward(X, TARGET), r"prediction must be a Projection, got float64 \(3, 2, 4, 5\)"),
        (lambda: LOSS.forward(prediction, LABELS), r"target must be a LogProbabilityTarget, got int64 \(3, 2, 4\)"),
        (lambda: layers.linear_log_probability(hg.dpo_loss), "expected a Loss, .* got function"),
    ):
        with pytest.raises(hg.InputError, match=f"^linear_log_probability: {sentence}"):
            run()
