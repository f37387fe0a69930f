"""Batch norm: its statistics, the textbook's form of its backward pass, and what couples the examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X, DY = jnp.asarray(RNG.standard_normal((3, 4, 6)) + 2), jnp.asarray(RNG.standard_normal((3, 4, 6)))
GAMMA, BETA = jnp.asarray(RNG.standard_normal(6)), jnp.asarray(RNG.standard_normal(6))


@pytest.mark.parametrize("residuals", ["save", "recompute"])
def test_the_statistics_are_in_the_residuals(residuals):
    _, kept = rules.batch_norm_forward(X, GAMMA, BETA, residuals=residuals)
    np.testing.assert_allclose(kept.mean, np.mean(X, (0, 1)), rtol=1e-14)
    np.testing.assert_allclose(kept.variance, np.var(X, (0, 1)), rtol=1e-13)


def test_the_textbook_form():
    """dX = γ R / N (N dY − dβ − X̂ dγ), with the sums that are the parameters' gradients."""
    _, kept = rules.batch_norm_forward(X, GAMMA, BETA)
    dX, dgamma, dbeta = hg.materialize(rules.batch_norm_backward(kept, DY))
    N = 12
    R = 1 / np.sqrt(np.var(X, (0, 1)) + 1e-5)
    A = (np.asarray(X) - np.mean(X, (0, 1), keepdims=True)) * R[None, None]
    dgamma, dbeta = np.asarray(dgamma)[None, None], np.asarray(dbeta)[None, None]
    expected = (GAMMA * R)[None, None] / N * (N * np.asarray(DY) - dbeta - A * dgamma)
    np.testing.assert_allclose(dX, expected, rtol=1e-11, atol=1e-13)


def test_with_the_batchs_own_statistics_inference_is_training():
    """In value; in the backward pass, the statistics' cotangents carry what dX of inference leaves out."""
    Y, kept = rules.batch_norm_forward(X, GAMMA, BETA)
    again, given = rules.batch_norm_inference_forward(X, GAMMA, BETA, kept.mean, kept.variance)
    np.testing.assert_allclose(again, Y, rtol=1e-12, atol=1e-13)
    dX, dgamma, dbeta = hg.materialize(rules.batch_norm_backward(kept, DY))
    direct, dgamma_too, dbeta_too, dmean, dvariance = hg.materialize(rules.batch_norm_inference_backward(given, DY))
    np.testing.assert_allclose(dgamma_too, dgamma, rtol=1e-12)
    np.testing.assert_allclose(dbeta_too, dbeta, rtol=1e-12)
    _, pullback = jax.vjp(lambda X: (jnp.mean(X, (0, 1)), jnp.var(X, (0, 1))), X)
    (through_statistics,) = pullback((dmean, dvariance))
    np.testing.assert_allclose(direct + through_statistics, dX, rtol=1e-11, atol=1e-13)


def test_the_examples_meet_in_training_alone():
    """A cotangent at one example moves every row of dX, except with given statistics."""
    dY = DY.at[1:].set(0)
    dX, *_ = rules.batch_norm_backward(rules.batch_norm_forward(X, GAMMA, BETA)[1], dY)
    assert (jnp.abs(dX[1:]).max((1, 2)) > 1e-3).all()
    _, given = rules.batch_norm_inference_forward(X, GAMMA, BETA, BETA, GAMMA**2)
    dX, *_ = rules.batch_norm_inference_backward(given, dY)
    assert (dX[1:] == 0).all()


def test_one_row():
    """Nothing but its own mean: Y is beta, and X has no say."""
    Y, kept = rules.batch_norm_forward(X[:1, 0], GAMMA, BETA)
    assert (Y[0] == BETA).all()
    assert (rules.batch_norm_backward(kept, DY[:1, 0])[0] == 0).all()


def test_statistics_do_not_promote():
    """float32 averages beside a bfloat16 network leave it a bfloat16 one; their cotangents are in float32."""
    x, gamma, beta = (a.astype("bfloat16") for a in (X, GAMMA, BETA))
    mean, variance = BETA.astype("float32"), jnp.square(GAMMA).astype("float32")
    Y, residuals = rules.batch_norm_inference_forward(x, gamma, beta, mean, variance)
    assert Y.dtype == jnp.bfloat16
    cotangents = hg.materialize(rules.batch_norm_inference_backward(residuals, DY.astype("bfloat16")))
    assert [str(c.dtype) for c in cotangents] == ["bfloat16"] * 3 + ["float32"] * 2


@pytest.mark.parametrize("name", ["mean", "variance"])
@pytest.mark.parametrize("wrong", [jnp.ones(5), jnp.ones((1, 6)), None, 1.0, jnp.ones(6, int)], ids=str)
def test_statistics_fit_the_features(name, wrong):
    given = {"mean": BETA, "variance": GAMMA**2} | {name: wrong}
    with pytest.raises(hg.InputError, match=rf"^batch_norm_inference_forward: {name} must (have|be) .*, got "):
        rules.batch_norm_inference_forward(X, None, None, **given)
