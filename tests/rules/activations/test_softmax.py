"""The softmax family: a saturated row keeps its digits; rows of two logits, any distance apart."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import optimized_jit
from precision import Subject, autodiff, by_torch, cotangents, grid, over_the_whole_range

from handgrad import rules


def test_a_saturated_row_of_two():
    """dx1 = p1 p2 (dp1 - dp2), and p1 p2 = e^-gap / (1 + e^-gap)^2: a truth without a subtraction of near numbers."""
    backward = optimized_jit(lambda X, dP: rules.softmax_backward(rules.softmax_forward(X)[1], dP)[0])
    for dtype in (np.float32, np.float64):
        for gap in (0.5, 5.0, 13.0, 30.0):
            X, dP = np.array([[gap, 0.0], [0.0, gap]], dtype), np.array([[0.3, -1.7], [0.9, 0.2]], dtype)
            product = np.exp(-gap) / (1 + np.exp(-gap)) ** 2
            truth = product * (dP[:, :1].astype("f8") - dP[:, 1:].astype("f8")) * np.array([[1.0, -1.0]])
            np.testing.assert_allclose(backward(X, dP), truth, rtol=8 * np.finfo(dtype).eps)


def test_logits_that_a_compiler_computes_twice():
    """Z is made inside the program, once for the maximum and once for the sums, and rounded in two ways: fused with
    what follows, z / τ − m is one operation. No element may count as another than the largest for that."""
    rng = np.random.default_rng(0)
    U, V, dL = (rng.standard_normal(shape) for shape in ((64, 4), (5, 4), (64, 5)))

    @optimized_jit
    def run(U, V):
        Z = U @ V.T / 0.07
        L, residuals = rules.log_softmax_forward(Z)
        _, of_softmax = rules.softmax_forward(Z)
        C, of_loss = rules.softmax_cross_entropy_forward(Z, jnp.arange(64) % 5)
        (dZ, _, _) = rules.softmax_cross_entropy_backward(of_loss, jnp.ones(64))
        return L, rules.log_softmax_backward(residuals, dL)[0], rules.softmax_backward(of_softmax, dL)[0], C, dZ

    Z = U @ V.T / 0.07
    L = Z - Z.max(1, keepdims=True)
    L = L - np.log(np.exp(L).sum(1, keepdims=True))
    P, labels = np.exp(L), np.eye(5)[np.arange(64) % 5]
    dP = P * (dL - (P * dL).sum(1, keepdims=True))
    for found, expected in zip(
        run(U, V), (L, dL - P * dL.sum(1, keepdims=True), dP, -(L * labels).sum(1), P - labels), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


# Precision: all digits, or twice the best rival's error.


def pair(z):
    """log p of the rows (z, 0), with all digits in float64: the one that is sure has −log1p(e^−|z|)."""
    return np.stack([-np.logaddexp(0, -z), -np.logaddexp(0, z)], axis=-1)


def sums(X):
    return pair(X[:, 0] - X[:, 1])


def of_softmax(X, dP):
    P = np.exp(sums(X))
    return P, P * P[:, ::-1] * (dP - dP[:, ::-1])


def of_log_softmax(X, dL):
    L = sums(X)
    P = np.exp(L)
    return L, P[:, ::-1] * dL - P * dL[:, ::-1]


def of_logsumexp(X, dY):
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
    subject("softmax", jax.nn.softmax, lambda t, x: t.softmax(x, -1), of_softmax),
    subject("softmax", jax.nn.softmax, lambda t, x: t.softmax(x, -1), of_softmax, sure_alone=True),
    subject("log_softmax", jax.nn.log_softmax, lambda t, x: t.log_softmax(x, -1), of_log_softmax),
    subject("log_softmax", jax.nn.log_softmax, lambda t, x: t.log_softmax(x, -1), of_log_softmax, sure_alone=True),
    subject(
        "logsumexp", lambda X: jax.nn.logsumexp(X, -1), lambda t, x: t.logsumexp(x, -1), of_logsumexp, reduced=True
    ),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)
