"""Smooth activations: what is known at 0 and far from it, and precision over the whole range of a dtype."""

import jax
import jax.numpy as jnp
import numpy as np
from precision import activation, assert_known, over_the_whole_range, sigma, slope_of

from handgrad import rules

X = [1e4, -1e4, 0.0]
SIGMOID = slope_of(sigma, lambda x: sigma(x) * sigma(-x))
SECH = slope_of(np.tanh, lambda x: 4 * sigma(2 * x) * sigma(-2 * x))
SOFTPLUS = slope_of(lambda x: np.logaddexp(x, 0), sigma)
SUBJECTS = [
    activation("identity", lambda x: x * 1, lambda t, x: x * 1),
    activation("sigmoid", jax.nn.sigmoid, lambda t, x: t.sigmoid(x), SIGMOID),
    activation("tanh", jnp.tanh, lambda t, x: t.tanh(x), SECH),
    activation("softplus", jax.nn.softplus, "softplus", SOFTPLUS),
    activation("softplus", jax.nn.softplus, "softplus", SOFTPLUS, name="of-its-output", residuals="save"),
    activation(
        "sigmoid", jax.nn.sigmoid, lambda t, x: t.sigmoid(x), SIGMOID, name="of-its-input", residuals="recompute"
    ),
    activation("tanh", jnp.tanh, lambda t, x: t.tanh(x), SECH, name="of-its-input", residuals="recompute"),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_exact_where_known():
    assert_known(
        {
            "sigmoid": (rules.sigmoid, X, [1, 0, 0.5], [0, 0, 0.25]),
            "tanh": (rules.tanh, X, [1, -1, 0], [0, 0, 1]),
            "softplus": (rules.softplus, X, [1e4, 0, np.log(2)], [1, 0, 0.5]),
        }
    )
