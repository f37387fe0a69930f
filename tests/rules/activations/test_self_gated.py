"""Self-gated activations: what is known at 0 and far from it, and precision over the whole range of a dtype."""

import jax
from precision import activation, assert_known, autodiff, over_the_whole_range, tanh_form

from handgrad import rules

X = [1e4, -1e4, 0.0]
SUBJECTS = [
    activation("silu", jax.nn.silu, "silu"),
    activation("mish", jax.nn.mish, "mish"),
    activation("gelu", lambda x: jax.nn.gelu(x, approximate=False), "gelu"),
    activation(
        "gelu",
        lambda x: jax.nn.gelu(x, approximate=True),
        lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
        autodiff(tanh_form),
        name="tanh-form",
        approximate=True,
    ),
    activation("silu", jax.nn.silu, "silu", name="of-its-input", residuals="recompute"),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_exact_where_known():
    assert_known(
        {
            "silu": (rules.silu, X, [1e4, 0, 0], [1, 0, 0.5]),
            "mish": (rules.mish, X, [1e4, 0, 0], [1, 0, 0.6]),
            "gelu": (rules.gelu, X, [1e4, 0, 0], [1, 0, 0.5]),
            "gelu-tanh": (rules.gelu.with_options(approximate=True), X, [1e4, 0, 0], [1, 0, 0.5]),
        }
    )
