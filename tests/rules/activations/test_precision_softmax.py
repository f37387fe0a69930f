"""The softmax family on rows of two logits, any distance apart: all digits, or twice the best rival's error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import Subject, assert_precise, autodiff, by_torch, cotangents, grid


def pair(z):
    """log p of the rows (z, 0), with all digits in float64: the one that is sure has −log1p(e^−|z|)."""
    return np.stack([-np.logaddexp(0, -z), -np.logaddexp(0, z)], axis=-1)


def sums(X):
    return pair(X[:, 0] - X[:, 1])


def softmax(X, dP):
    P = np.exp(sums(X))
    return P, P * P[:, ::-1] * (dP - dP[:, ::-1])


def log_softmax(X, dL):
    L = sums(X)
    P = np.exp(L)
    return L, P[:, ::-1] * dL - P * dL[:, ::-1]


def logsumexp(X, dY):
    return np.logaddexp(X[:, 0], X[:, 1]), np.exp(sums(X)) * dY[:, None]


def rows(reduced, sure_alone):
    """(z, 0) for each z of the grid, and dY; `sure_alone`: the cotangent of a classifier's loss, 0 but at one logit."""

    def inputs(dtype):
        X = np.stack([grid(dtype), np.zeros_like(grid(dtype))], axis=-1)
        dY = cotangents(X.shape[:1] if reduced else X.shape, dtype)
        if not reduced:
            dY *= np.array([1, -1], dtype) * np.sign(dY)  # two numbers of one sign may really cancel in log_softmax
        if sure_alone:
            dY[np.arange(len(X)), np.where(X[:, 0] > 0, 1, 0)] = 0
        return X, dY

    return inputs


def subject(op, primal, of_torch, truth, reduced=False, sure_alone=False):
    name = "sure-alone" if sure_alone else "rows"
    rivals = {"jax.grad": autodiff(primal), **by_torch(of_torch)}
    return Subject(op, name, ("Y", "dX"), rows(reduced, sure_alone), truth, rivals=rivals, bars={"dX": 12})


SUBJECTS = [
    subject("softmax", jax.nn.softmax, lambda t, x: t.softmax(x, -1), softmax),
    subject("softmax", jax.nn.softmax, lambda t, x: t.softmax(x, -1), softmax, sure_alone=True),
    subject("log_softmax", jax.nn.log_softmax, lambda t, x: t.log_softmax(x, -1), log_softmax),
    subject("log_softmax", jax.nn.log_softmax, lambda t, x: t.log_softmax(x, -1), log_softmax, sure_alone=True),
    subject("logsumexp", lambda X: jax.nn.logsumexp(X, -1), lambda t, x: t.logsumexp(x, -1), logsumexp, reduced=True),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_over_the_whole_range(subject, dtype):
    assert_precise(subject, dtype)
