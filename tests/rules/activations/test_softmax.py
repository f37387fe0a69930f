"""A saturated softmax keeps its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import rules


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gap", [0.5, 5.0, 13.0, 30.0])
def test_a_saturated_row_of_two(gap, dtype):
    """dx1 = p1 p2 (dp1 - dp2), and p1 p2 = e^-gap / (1 + e^-gap)^2: a truth without a subtraction of near numbers."""
    X, dP = np.array([[gap, 0.0], [0.0, gap]], dtype), np.array([[0.3, -1.7], [0.9, 0.2]], dtype)
    product = np.exp(-gap) / (1 + np.exp(-gap)) ** 2
    truth = product * (dP[:, :1].astype("f8") - dP[:, 1:].astype("f8")) * np.array([[1.0, -1.0]])
    dX = rules.softmax_backward(rules.softmax_forward(jnp.asarray(X))[1], jnp.asarray(dP))[0]
    np.testing.assert_allclose(dX, truth, rtol=8 * np.finfo(dtype).eps)


def test_logits_that_a_compiler_computes_twice():
    """Z is made inside the program, once for the maximum and once for the sums, and rounded in two ways: fused with
    what follows, z / τ − m is one operation. No element may count as another than the largest for that."""
    rng = np.random.default_rng(0)
    U, V, dL = (rng.standard_normal(shape) for shape in ((64, 4), (5, 4), (64, 5)))

    @jax.jit
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
