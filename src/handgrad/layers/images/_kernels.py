"""What the layers of both convolutions share: their parameters, and the layer around either rule."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_array, check_count, check_params, check_shape, describe
from handgrad.layers.layer import Layer, made_by
from handgrad.rule import Rule
from handgrad.rules.images._windows import PerAxis, per_axis
from handgrad.rules.images.convolution import check_groups

Initializer = jax.nn.initializers.Initializer
Images = Float[Array, "batch *space n_in"]


class ConvolutionParams(NamedTuple):
    """Parameters of `convolution` and of `transposed_convolution`.

    Attributes:
      K: (*size, n_in / groups, n_out) kernel; of a transposed convolution (*size, n_out / groups, n_in).
      b: (n_out,) bias, or None.
    """

    K: Array
    b: Array | None = None


def kernel_layer(
    rule: Rule[..., Array],
    n_out: int,
    window: PerAxis,
    groups: int,
    features: Callable[[int], tuple[int, int]],
    init_K: Initializer,
    init_b: Initializer | None,
) -> Layer:
    """A kernel (*size, *features(n_in)) and a bias around a rule's two passes; without init_b, no bias."""
    name = rule.__name__
    check_count(name, "n_out", n_out)
    check_count(name, "groups", groups)

    def kernel_shape(x: Images | jax.ShapeDtypeStruct) -> tuple[int, ...]:
        check_array(name, "x", x)
        if len(x.shape) < 3:
            raise InputError(f"{name}: x must have shape (batch, *space, n_in), got {describe(x)}")
        check_groups(name, groups, x.shape[-1], n_out)
        return (*per_axis(name, "window", window, len(x.shape) - 2), *features(x.shape[-1]))

    def init(key: PRNGKeyArray, x: Images | jax.ShapeDtypeStruct) -> ConvolutionParams:
        key_K, key_b = jax.random.split(key)
        shape, dtype = kernel_shape(x), jax.dtypes.canonicalize_dtype(x.dtype)
        return ConvolutionParams(init_K(key_K, shape, dtype), init_b(key_b, (n_out,), dtype) if init_b else None)

    def forward(params: ConvolutionParams, x: Images, key: PRNGKeyArray | None = None) -> tuple[Array, PyTree]:
        check_params(name, params, ConvolutionParams)
        check_array(name, "params.K", params.K)
        check_shape(name, "params.K", params.K, kernel_shape(x), f"to meet x {tuple(x.shape)}")
        if (params.b is None) != (init_b is None):
            raise InputError(f"{name}: params.b must be {'an array' if init_b else 'None'}, got {describe(params.b)}")
        return rule.forward(x, params.K, params.b)

    def backward(residuals: PyTree, dy: Array) -> tuple[Array, ConvolutionParams]:
        dx, dK, db = rule.backward(residuals, dy)
        return dx, ConvolutionParams(dK, db)

    return made_by(name, Layer(init, forward, backward))
