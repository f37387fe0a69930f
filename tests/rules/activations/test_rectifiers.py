"""Rectifiers: what is known at 0 and far from it, and precision over the whole range of a dtype."""

import jax
import numpy as np
from precision import activation, assert_known, over_the_whole_range, slope_of

from handgrad import rules


def exponential(scale, alpha):
    return slope_of(
        lambda x: np.where(x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, scale, scale * alpha * np.exp(np.minimum(x, 0))),
    )


SELU = exponential(1.0507009873554804934193349852946, 1.6732632423543772848170429916717)
SUBJECTS = [
    activation("relu", jax.nn.relu, lambda t, x: t.relu(x)),
    activation("leaky_relu", jax.nn.leaky_relu, "leaky_relu"),
    activation("elu", jax.nn.elu, "elu", exponential(1.0, 1.0)),
    activation("selu", jax.nn.selu, "selu", SELU),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_exact_where_known():
    assert_known(
        {
            "elu": (rules.elu.with_options(alpha=0.5), [1e4, -1e4, 1e-30], [1e4, -0.5, 1e-30], [1, 0, 1]),
            "relu": (rules.relu, [1e4, -1e4, 0.0], [1e4, 0, 0], [1, 0, 0]),
        }
    )
