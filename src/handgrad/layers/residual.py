"""residual: a layer and the way around it."""

import jax

from handgrad.layers.layer import Composed, Layer, check_layer
from handgrad.shapes import InputError, describe

__all__ = [
    "residual",
]


def residual(layer: Layer) -> Layer:
    """y = x + layer(x): what flows back is dy itself plus dy pulled back through the layer.

    Args:
      layer: its output has the shape and the dtype of its input.
    Raises:
      InputError: at trace time, where the layer's output is unlike its input.
    Derivation: docs/derivations/composition.md
    """

    check_layer("residual", layer)

    def forward(params, x, key=None):
        fx, residuals = layer.forward(params, x, key)
        check_like("residual", x, fx)
        return x + fx, residuals

    def backward(residuals, dy):
        dx, dparams = layer.backward(residuals, dy)
        return dy + dx, dparams

    def parts(params, x, key=None):
        yield "inside", layer, params, x, key

    return Composed(layer.init, forward, backward, parts)


def check_like(where, x, y):
    """A layer's output y has its input's shape and dtype."""
    if x.shape != y.shape or jax.dtypes.canonicalize_dtype(x.dtype) != y.dtype:
        raise InputError(f"{where}: the layer's output must be like its input, {describe(x)}, got {describe(y)}")
