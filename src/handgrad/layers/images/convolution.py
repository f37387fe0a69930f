"""convolution: kernels that slide over space."""

import jax

from handgrad import rules
from handgrad.layers.images._kernels import ConvolutionParams, Initializer, kernel_layer
from handgrad.layers.layer import Layer
from handgrad.rules.images._windows import Padding, PerAxis

__all__ = ["ConvolutionParams", "convolution"]


def convolution(
    n_out: int,
    window: PerAxis,
    *,
    strides: PerAxis = 1,
    padding: Padding = "SAME",
    dilation: PerAxis = 1,
    groups: int = 1,
    bias: bool = True,
    init_K: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """y_i = Σ_t x_{s i + d t − p} K_t + b, with parameters ConvolutionParams(K, b).

    x is (batch, *space, n_in) with any number of axes of space; n_in comes from the x of `init`.

    >>> import jax, jax.numpy as jnp
    >>> from handgrad import layers
    >>> params = layers.convolution(8, 3, strides=2).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> params.K.shape
    (3, 3, 1, 8)

    Args:
      n_out: output features.
      window: taps of the kernel, an integer or one for each axis of space.
      strides, padding, dilation, groups: as convolution_forward's; groups=n_in is a depthwise convolution.
      bias: False omits b.
      init_K, init_b: initializers, (key, shape, dtype) -> array; parameters get the dtype of `init`'s x.
    Derivation: docs/derivations/images/convolution.md
    """
    rule = rules.convolution.with_options(strides=strides, padding=padding, dilation=dilation, groups=groups)
    return kernel_layer(
        rule, n_out, window, groups, lambda n_in: (n_in // groups, n_out), init_K, init_b if bias else None
    )
