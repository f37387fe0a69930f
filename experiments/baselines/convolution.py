"""Convolutions of lax, with a bias."""

from jax import lax

from baselines.pullback import pullback

NHWC = ("NHWC", "HWIO", "NHWC")


def ways(*, strides=1, groups=1, transposed=False, **sizes):
    """Output and pullback."""

    def convolve(x, k, b):
        return b + lax.conv_general_dilated(
            x, k, (strides, strides), "SAME", dimension_numbers=NHWC, feature_group_count=groups
        )

    def transpose(x, k, b):
        # "SAME" of a transpose is the padding of the convolution that takes the result's shape to x's.
        return b + lax.conv_transpose(x, k, (strides, strides), "SAME", dimension_numbers=NHWC, transpose_kernel=True)

    return {"jax.vjp": pullback(transpose if transposed else convolve)}
