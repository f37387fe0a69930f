"""Group and instance norm: the norms that they are special cases of, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
ROWS, TOKENS, (GAMMA, BETA) = RNG.standard_normal((3, 6)), RNG.standard_normal((3, 4, 6)), RNG.standard_normal((2, 6))


def test_special_cases():
    def outcome(rule, X):
        Y, residuals = rule.forward(X, GAMMA, BETA)
        return Y, hg.materialize(rule.backward(residuals, jnp.cos(X)))

    @optimized_jit
    def both(rows, tokens):
        of_rows = rules.group_norm.with_options(groups=1, eps=0.1), rules.layer_norm.with_options(eps=0.1)
        of_tokens = rules.group_norm.with_options(groups=6), rules.instance_norm
        of_one_example = rules.instance_norm, rules.batch_norm
        return (
            [outcome(rule, rows) for rule in of_rows],
            [outcome(rule, tokens) for rule in of_tokens],
            [outcome(rule, tokens[:1]) for rule in of_one_example],
            [rule.forward(tokens)[0] for rule in (rules.group_norm.with_options(groups=1), rules.layer_norm)],
        )

    *same, (one, other) = both(ROWS, TOKENS)
    for pair in same:
        assert_same(*pair)
    assert np.abs(np.asarray(one) - other).max() > 0.1  # layer norm leaves tokens apart, one group does not


def test_refusals():
    for groups in (4, 5, 12):
        message = rf"^group_norm_forward: X must have a multiple of {groups} \(groups\) features, got float64 "
        with pytest.raises(hg.InputError, match=message + r"\(3, 4, 6\)$"):
            rules.group_norm_forward(TOKENS, groups=groups)
    for groups in (0, -1, 2.0, True, None):
        with pytest.raises(hg.InputError, match=r"^group_norm_forward: groups must be a positive integer, got "):
            rules.group_norm_forward(TOKENS, groups=groups)
    # Every number would be its own mean.
    message = r"^instance_norm_forward: X must have shape \(batch, tokens, \.\.\., features\), got float64 \(3, 6\)$"
    with pytest.raises(hg.InputError, match=message):
        rules.instance_norm_forward(ROWS)
