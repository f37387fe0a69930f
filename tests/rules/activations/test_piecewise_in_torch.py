"""PyTorch's piecewise activations on the same numbers, none of them at a kink, and at ±1e4."""

from in_torch import LARGE, F, assert_rules_agree, normal

from handgrad import rules


def hard_sigmoid(x):
    """As F.hardsigmoid, whose sixth is one of float32 in its backward pass."""
    return F.relu6(x + 3) / 6


def test_piecewise():
    X, s, one = 3 * normal(5, 4, 3), normal(3), normal(1)
    assert_rules_agree(
        {
            "prelu": (rules.prelu, lambda x, s: F.prelu(x.movedim(-1, 1), s).movedim(1, -1), (X, s)),
            "prelu, one slope": (rules.prelu, F.prelu, (X, one)),
            "squared_relu": (rules.squared_relu, lambda x: F.relu(x) ** 2, (X,)),
            "hard_sigmoid": (rules.hard_sigmoid, hard_sigmoid, (X,)),
            "hard_swish": (rules.hard_swish, lambda x: x * hard_sigmoid(x), (X,)),
            "squared_relu, large": (rules.squared_relu, lambda x: F.relu(x) ** 2, (LARGE,)),
            "hard_sigmoid, large": (rules.hard_sigmoid, hard_sigmoid, (LARGE,)),
            "hard_swish, large": (
                rules.hard_swish.with_options(residuals="save"),
                lambda x: x * hard_sigmoid(x),
                (LARGE,),
            ),
        }
    )
