"""Convolution and its way back: kernels that slide over space."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from handgrad import rules
from handgrad.checks import InputError, check_array, check_count, check_params, check_shape, describe
from handgrad.rules.images._windows import per_axis
from handgrad.layers.layer import Layer
from handgrad.rules.images.convolution import check_groups
from handgrad.rules.rule import Rule

__all__ = [
    "ConvolutionParams",
    "convolution",
    "transposed_convolution",
]

Array = jax.Array
Initializer = jax.nn.initializers.Initializer


class ConvolutionParams(NamedTuple):
    """Parameters of `convolution` and of `transposed_convolution`.

    Attributes:
      K: (*size, n_in / groups, n_out) kernel; of a transposed convolution (*size, n_out / groups, n_in).
      b: (n_out,) bias, or None.
    """

    K: Any
    b: Any = None


def convolution(
    n_out: int,
    window: int | Sequence[int],
    *,
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    init_K: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """y_i = Σ_t x_{s i + d t − p} K_t + b, with parameters ConvolutionParams(K, b).

    x is (batch, *space, n_in) with any number of axes of space; n_in comes from the x of `init`.

    Args:
      n_out: output features.
      window: taps of the kernel, an integer or one for each axis of space.
      strides, padding, dilation, groups: as convolution_forward's; groups=n_in is a depthwise convolution.
      bias: False leaves b away.
      init_K, init_b: initializers, (key, shape, dtype) -> array; parameters get the dtype of `init`'s x.
    Raises:
      InputError: n_out or groups is not a positive integer; at trace time, params of another layer, and as
        convolution_forward and convolution_backward.
    Derivation: docs/derivations/images/convolution.md
    """
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    rule = rules.convolution.with_options(**options)
    check_count("convolution", "n_out", n_out)
    check_count("convolution", "groups", groups)

    def features(n_in):
        check_groups("convolution", groups, n_in, n_out)
        return n_in // groups, n_out

    return _layer("convolution", rule, window, features, n_out, init_K, init_b if bias else None)


def transposed_convolution(
    n_out: int,
    window: int | Sequence[int],
    *,
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    groups: int = 1,
    output_padding: Any = 0,
    bias: bool = True,
    init_K: Initializer = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """A convolution's way back, with parameters ConvolutionParams(K, b): from (batch, *outputs, n_in) to more space.

    Args:
      n_out: output features.
      window: taps of the kernel, an integer or one for each axis of space.
      strides, padding, dilation, groups, output_padding: as transposed_convolution_forward's.
      bias, init_K, init_b: as convolution's.
    Raises:
      InputError: as convolution, of transposed_convolution_forward and transposed_convolution_backward.
    Derivation: docs/derivations/images/transposed_convolution.md
    """
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    options["output_padding"] = output_padding
    rule = rules.transposed_convolution.with_options(**options)
    check_count("transposed_convolution", "n_out", n_out)
    check_count("transposed_convolution", "groups", groups)

    def features(n_in):
        check_groups("transposed_convolution", groups, n_in, n_out)
        return n_out // groups, n_in

    return _layer("transposed_convolution", rule, window, features, n_out, init_K, init_b if bias else None)


def _layer(
    name: str,
    rule: Rule[..., Array],
    window: Any,
    features: Callable[[int], tuple[int, int]],
    n_out: int,
    init_K: Initializer,
    init_b: Initializer | None,
) -> Layer:
    """A kernel (*size, *features(n_in)) and a bias around a rule's two passes; init_b None stands for no bias."""

    def kernel_shape(x):
        check_array(name, "x", x)
        if len(x.shape) < 3:
            raise InputError(f"{name}: x must have shape (batch, *space, n_in), got {describe(x)}")
        return (*per_axis(name, "window", window, len(x.shape) - 2), *features(x.shape[-1]))

    def init(key, x):
        key_K, key_b = jax.random.split(key)
        dtype = jax.dtypes.canonicalize_dtype(getattr(x, "dtype", float))
        K = init_K(key_K, kernel_shape(x), dtype)
        return ConvolutionParams(K, init_b(key_b, (n_out,), dtype) if init_b else None)

    def forward(params, x, key=None):
        check_params(name, params, ConvolutionParams)
        check_array(name, "params.K", params.K)
        check_shape(name, "params.K", params.K, kernel_shape(x), f"to meet x {tuple(x.shape)}")
        if (params.b is None) != (init_b is None):
            raise InputError(f"{name}: params.b must be {'an array' if init_b else 'None'}, got {describe(params.b)}")
        return rule.forward(x, params.K, params.b)

    def backward(residuals, dy):
        dx, dK, db = rule.backward(residuals, dy)
        return dx, ConvolutionParams(dK, db)

    return Layer(init, forward, backward)
