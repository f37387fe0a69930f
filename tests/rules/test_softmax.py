"""A saturated softmax keeps its digits."""

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
