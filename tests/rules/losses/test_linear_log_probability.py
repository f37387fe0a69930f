"""The log-probability of each token: what is never materialized; losses on top against plain JAX with all logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import layers, rules
from handgrad.cases.linear import linear

RNG = np.random.default_rng(0)
X, W, B = (RNG.standard_normal(shape) for shape in ((3, 2, 4, 5), (5, 7), (7,)))
LABELS = RNG.integers(0, 7, X.shape[:-1])
LABELS[0, 1, 2:] = LABELS[2, 0, :1] = -100
COUNTS = LABELS >= 0
REFERENCE, OLD = (np.where(COUNTS, -RNG.gamma(2, 1, LABELS.shape), 0) for _ in range(2))
REWARDS, DL = RNG.standard_normal((3, 2)), RNG.standard_normal(LABELS.shape)


def log_probabilities(X, W, b, labels=LABELS):
    """In plain JAX, all logits written out."""
    L = jax.nn.log_softmax(linear(X, W, b))
    L = jnp.take_along_axis(L, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    return jnp.where(labels >= 0, L, 0)


def plain_dpo(X, W, b):
    ratios = jnp.sum(log_probabilities(X, W, b) - REFERENCE, -1)
    return jnp.sum(-jax.nn.log_sigmoid(0.1 * (ratios[:, 0] - ratios[:, 1])))


def plain_grpo(X, W, b):
    L = log_probabilities(X, W, b)
    A = (REWARDS - REWARDS.mean(1, keepdims=True)) / (REWARDS.std(1, ddof=1, keepdims=True) + 1e-4)
    A = A[..., None]
    rho, r = jnp.exp(L - OLD), REFERENCE - L
    C = 0.04 * (jnp.exp(r) - r - 1) - jnp.minimum(rho * A, jnp.clip(rho, 0.8, 1.2) * A)
    return jnp.sum(jnp.mean(jnp.sum(C * COUNTS, -1) / COUNTS.sum(-1), 1))


def test_losses_on_top():
    """DPO and GRPO of the rule's log-probabilities: value, and gradients of X, W and b, against plain JAX."""

    def dpo(X, W, b):
        return rules.dpo_loss(rules.linear_log_probability(X, W, b, LABELS, chunk=5, ignore_index=-100), REFERENCE)

    def grpo(X, W, b):
        L = rules.linear_log_probability(X, W, b, LABELS, chunk=5, ignore_index=-100)
        return rules.grpo_loss(L, OLD, REFERENCE, rules.group_advantages(REWARDS), COUNTS)

    @jax.jit
    def run(*arguments):
        by_hand = [lambda *a, f=f: jnp.sum(f(*a)) for f in (dpo, grpo)]
        return [[jax.value_and_grad(f, (0, 1, 2))(*arguments) for f in of] for of in (by_hand, (plain_dpo, plain_grpo))]

    assert_same(*run(X, W, B))


def test_any_chunk_factors_and_what_does_not_count():
    """The same by any chunk; W's and b's factors are those of `linear`, per example and weighted; what X holds where a
    label is to be ignored doesn't matter."""
    weights = np.array([2.0, -1.0, 0.5])

    def folds(of):
        return [(f.sum(), f.sum(weights), f.per_example(), f.with_sides().sum()) for f in of]

    @jax.jit
    def run(X):
        outcomes = []
        for chunk in (1, 7, 100):
            rule = rules.linear_log_probability.with_options(chunk=chunk, ignore_index=-100)
            L, residuals = rule.forward(jnp.where(COUNTS[..., None], X, jnp.nan), W, B, LABELS)
            dX, dW, db, _ = rule.backward(residuals, DL)
            outcomes.append((L, dX, folds((dW, db)) if chunk == 7 else hg.materialize((dW, db))))
        Z, kept = rules.linear_forward(X, W, B)
        one_hot = jax.nn.one_hot(LABELS, 7)
        dZ = jnp.where(COUNTS, DL, 0)[..., None] * (one_hot - jax.nn.softmax(Z))
        dX, dW, db = rules.linear_backward(kept, dZ)
        expected = log_probabilities(X, W, B), dX
        per_example = [factor.per_example() for factor in (dW, db)]
        return (
            outcomes,
            expected,
            [(f.sum(), f.sum(weights), g, f.sum()) for f, g in zip((dW, db), per_example, strict=True)],
        )

    (one, seven, hundred), expected, of_factors = run(X)
    assert_same(seven, (*expected, of_factors))
    for outcome in (one, hundred):
        assert_same(outcome, (*expected, tuple(total for total, *_ in of_factors)))


def test_temporary_memory_is_the_chunks():
    """4,096 tokens of 1,024 classes: the logits alone, once, would be 16.8 MB; a chunk of 128 is 0.5 MB."""
    tokens, n_in, n = 4096, 16, 1024
    x, labels = (
        jax.ShapeDtypeStruct((2, tokens // 2, n_in), np.float32),
        jax.ShapeDtypeStruct((2, tokens // 2), np.int32),
    )
    params = hg.LinearParams(jax.ShapeDtypeStruct((n_in, n), np.float32), jax.ShapeDtypeStruct((n,), np.float32))
    numbers = jax.ShapeDtypeStruct(labels.shape, np.float32)
    target = layers.PolicyTarget(numbers, jax.ShapeDtypeStruct((2,), np.float32))
    loss = layers.linear_log_probability(hg.ppo_loss(), chunk=128, ignore_index=0)
    gradients = hg.value_and_grad(layers.projection(n), loss)
    compiled = jax.jit(gradients).lower(params, x, layers.LogProbabilityTarget(labels, target)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < tokens * n * 4 / 4


def test_bad_input():
    refuse = functools.partial(refuses, rules.linear_log_probability)
    refuse("X must have shape (3, 2, 4, 7) to meet W (7, 5), got float64 (3, 2, 4, 5)", X, W.T, B, LABELS)
    refuse("the labels Y must be integers, got float64 (3, 2, 4)", X, W, B, LABELS + 0.5)
    refuse("chunk must be a positive integer, got 0", X, W, B, LABELS, chunk=0)
    refuse("softcap must be a positive number, got -1", X, W, B, LABELS, softcap=-1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_label_that_is_all_but_sure(dtype):
    """Logits (x, 0, 0) and label 0: −log(1 + 2 / e^x), down to e^-80."""
    x = np.linspace(-80, 80, 65).astype(dtype)
    given = x[:, None], np.array([[1, 0, 0]]).astype(dtype), np.zeros(3).astype(dtype), np.zeros(65, int)
    L = optimized_jit(lambda X: rules.linear_log_probability(X, *given[1:]))(given[0])
    truth = -np.logaddexp(0, np.log(2) - x.astype(np.float64))
    np.testing.assert_allclose(np.asarray(L, np.float64), truth, rtol=4 * jnp.finfo(dtype).eps)
