"""Group and instance norm: the norms that they are special cases of, and what they refuse."""

import jax.numpy as jnp
import numpy as np
from helpers import assert_same, optimized_jit, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
ROWS, TOKENS, (GAMMA, BETA) = RNG.standard_normal((3, 6)), RNG.standard_normal((3, 4, 6)), RNG.standard_normal((2, 6))


def test_special_cases():
    grouped, layer, instance, batch = rules.group_norm, rules.layer_norm, rules.instance_norm, rules.batch_norm

    @optimized_jit
    def both(rows, tokens):
        pairs = [
            (rows, grouped.with_options(groups=1, eps=0.1), layer.with_options(eps=0.1)),
            (tokens, grouped.with_options(groups=6), instance),
            (tokens[:1], instance, batch),
        ]
        same = [[passes(rule, jnp.cos(X), X, GAMMA, BETA) for rule in of] for X, *of in pairs]
        return *same, [rule.forward(tokens)[0] for rule in (grouped.with_options(groups=1), layer)]

    *same, (one, other) = both(ROWS, TOKENS)
    for pair in same:
        assert_same(*pair)
    assert np.abs(np.asarray(one) - other).max() > 0.1  # layer norm leaves tokens apart, one group does not


def test_refusals():
    for groups in (4, 5, 12):
        sentence = f"X must have a multiple of {groups} (groups) features, got float64 (3, 4, 6)"
        refuses(rules.group_norm, sentence, TOKENS, groups=groups)
    for groups in (0, -1, 2.0, True, None):
        refuses(rules.group_norm, f"groups must be a positive integer, got {groups}", TOKENS, groups=groups)
    # Every number would be its own mean.
    refuses(rules.instance_norm, "X must have shape (batch, tokens, ..., features), got float64 (3, 6)", ROWS)
