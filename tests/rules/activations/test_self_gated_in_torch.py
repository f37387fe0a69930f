"""PyTorch's self-gated activations on the same numbers, and at ±1e4, where all values and gradients are finite."""

from in_torch import F, assert_activations_agree

from handgrad import rules


def test_self_gated():
    assert_activations_agree(
        (rules.silu, F.silu),
        (rules.mish, F.mish),
        (rules.gelu, F.gelu),
        (rules.gelu.with_options(approximate=True), lambda x: F.gelu(x, approximate="tanh")),
    )
