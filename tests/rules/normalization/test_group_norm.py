"""Group and instance norm: the norms that they are special cases of, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
ROWS, TOKENS = jnp.asarray(RNG.standard_normal((3, 6))), jnp.asarray(RNG.standard_normal((3, 4, 6)))
GAMMA, BETA = jnp.asarray(RNG.standard_normal(6)), jnp.asarray(RNG.standard_normal(6))


def outcome(op, X, **options):
    Y, residuals = getattr(rules, op).forward(X, GAMMA, BETA, **options)
    return Y, *hg.materialize(getattr(rules, op).backward(residuals, jnp.cos(X), **options))


def assert_same(found, expected):
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-13)


def test_one_group_of_rows_is_layer_norm():
    assert_same(outcome("group_norm", ROWS, groups=1, eps=0.1), outcome("layer_norm", ROWS, eps=0.1))


def test_one_group_of_tokens_is_not_layer_norm():
    assert jnp.abs(outcome("group_norm", TOKENS, groups=1)[0] - outcome("layer_norm", TOKENS)[0]).max() > 0.1


def test_groups_of_one_feature_are_instance_norm():
    assert_same(outcome("group_norm", TOKENS, groups=6), outcome("instance_norm", TOKENS))


def test_instance_norm_of_one_example_is_batch_norm():
    assert_same(outcome("instance_norm", TOKENS[:1]), outcome("batch_norm", TOKENS[:1]))


@pytest.mark.parametrize("groups", [4, 5, 12])
def test_groups_that_do_not_divide_the_features(groups):
    message = rf"^group_norm_forward: X must have a multiple of {groups} \(groups\) features, got float64 \(3, 4, 6\)$"
    with pytest.raises(hg.InputError, match=message):
        rules.group_norm_forward(TOKENS, groups=groups)


@pytest.mark.parametrize("groups", [0, -1, 2.0, True, None])
def test_groups_is_a_positive_integer(groups):
    with pytest.raises(hg.InputError, match=r"^group_norm_forward: groups must be a positive integer, got "):
        rules.group_norm_forward(TOKENS, groups=groups)


def test_instance_norm_of_rows():
    """Every number would be its own mean."""
    message = r"^instance_norm_forward: X must have shape \(batch, tokens, \.\.\., features\), got float64 \(3, 6\)$"
    with pytest.raises(hg.InputError, match=message):
        rules.instance_norm_forward(ROWS)
