"""Policies as Losses, against what was recorded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)
L, OLD, REFERENCE = -RNG.gamma(2, 1, (3, 3, 2, 4))
A, MASK = RNG.standard_normal((3, 2)), RNG.uniform(size=L.shape) < 0.7


def test_each_reaches_its_rule_with_its_options():
    """Values and the prediction's gradient, weights and all; advantages as a layer."""
    weights = np.array([0.5, -1.0, 0.0])
    ppo, grpo = {"clip": 0.1, "clip_high": 0.3, "reduction": "sum"}, {"beta": 0.5, "clip": 0.1}
    rows = [
        (hg.ppo_loss(**ppo), layers.PolicyTarget(OLD, A, mask=MASK), lambda L: rules.ppo_loss(L, OLD, A, MASK, **ppo)),
        (
            hg.grpo_loss(**grpo),
            layers.PolicyTarget(OLD, A, REFERENCE),
            lambda L: rules.grpo_loss(L, OLD, REFERENCE, A, **grpo),
        ),
    ]

    @jax.jit
    def both(L):
        by_layer = [
            hg.value_and_grad(hg.identity(), loss, argnums=1)((), L, target, weights) for loss, target, _ in rows
        ]
        by_rule = [jax.value_and_grad(lambda L, f=f: jnp.sum(weights * f(L)))(L) for *_, f in rows]
        y, _ = layers.group_advantages(scale=False).forward((), A)
        return by_layer, by_rule, y

    by_layer, by_rule, y = both(L)
    assert_same(by_layer, by_rule)
    np.testing.assert_allclose(y, A - A.mean(1, keepdims=True), rtol=1e-14)


def test_bad_targets():
    for loss, target, sentence in (
        (hg.ppo_loss(), (OLD, A), "ppo_loss: target must be a PolicyTarget, got tuple"),
        (hg.ppo_loss(), layers.PolicyTarget(OLD, A, REFERENCE), "ppo_loss: target.reference must be None"),
        (
            hg.grpo_loss(),
            layers.PolicyTarget(OLD, A),
            "grpo_loss: target.reference must be log-probabilities, got None",
        ),
    ):
        with pytest.raises(hg.InputError, match=f"^{sentence}"):
            loss.forward(L, target)
