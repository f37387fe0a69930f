"""transposed_convolution: from few places to many."""

import jax

from handgrad import rules
from handgrad.layers.images._kernels import Initializer, kernel_layer
from handgrad.layers.layer import Layer
from handgrad.rules.images._windows import Padding, PerAxis

__all__ = ["transposed_convolution"]


def transposed_convolution(
    n_out: int,
    window: PerAxis,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
    output_padding: PerAxis = 0,
    bias: bool = True,
    init_K: Initializer = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """The transpose of a convolution, with parameters ConvolutionParams(K, b): (batch, *outputs, n_in) to more space.

    Args:
      n_out, window, bias, init_K, init_b: as convolution's.
      strides, padding, dilation, groups, output_padding: as transposed_convolution_forward's.
    Derivation: docs/derivations/images/transposed_convolution.md
    """
    rule = rules.transposed_convolution.with_options(
        strides=strides, padding=padding, dilation=dilation, groups=groups, output_padding=output_padding
    )
    return kernel_layer(
        rule, n_out, window, groups, lambda n_in: (n_out // groups, n_in), init_K, init_b if bias else None
    )
