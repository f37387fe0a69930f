"""residual: a layer and the skip connection around it."""

import jax
from jaxtyping import Array

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, check_layer, composed, made_by, placed
from handgrad.layers.structure.chain import check_entries, split_key

__all__ = ["residual"]


def residual(layer: Layer, shortcut: Layer | None = None) -> Layer:
    """y = x + layer(x): what flows back is dy itself plus dy pulled back through the layer.

    With a shortcut y = shortcut(x) + layer(x), for a layer whose output has another shape than x; parameters are a dict
    then, {"inside": layer's, "shortcut": shortcut's}.

    Args:
      layer: its output has the shape and the dtype of its input, or of the shortcut's output.
      shortcut: a layer in the place of the identity.
    Raises:
      InputError: at trace time, where the layer's output is unlike its input, or the shortcut's output.
    Derivation: docs/derivations/structure/residual.md
    """
    check_layer("residual", layer)
    layer = placed("inside", layer)
    if shortcut is not None:
        check_layer("residual", shortcut)
        return _with_shortcut(layer, placed("shortcut", shortcut))

    def forward(params, x, key=None):
        fx, residuals = layer.forward(params, x, key)
        check_like("residual", x, fx)
        return x + fx, residuals

    def backward(residuals, dy):
        dx, dparams = layer.backward(residuals, dy)
        return dy + dx, dparams

    return composed(layer.init, forward, backward, layer.couples)


def _with_shortcut(layer: Layer, shortcut: Layer) -> Layer:
    """Two layers side by side, their outputs added up: cotangents of two paths add up too."""

    def init(key, x):
        keys = jax.random.split(key)
        return {"inside": layer.init(keys[0], x), "shortcut": shortcut.init(keys[1], x)}

    def forward(params, x, key=None):
        check_entries("residual", "params", params, ("inside", "shortcut"))
        keys = split_key(key, 2)
        fx, of_layer = layer.forward(params["inside"], x, keys[0])
        sx, of_shortcut = shortcut.forward(params["shortcut"], x, keys[1])
        check_like("residual", sx, fx, "the shortcut's output")
        return sx + fx, (of_layer, of_shortcut)

    def backward(residuals, dy):
        check_entries("residual", "residuals", residuals, 2)
        dx, inside = layer.backward(residuals[0], dy)
        around_dx, around = shortcut.backward(residuals[1], dy)
        return around_dx + dx, {"inside": inside, "shortcut": around}

    return made_by("residual", composed(init, forward, backward, layer.couples or shortcut.couples))


def check_like(where: str, x: Array, y: Array, whose: str = "its input") -> None:
    """A layer's output y has its input's shape and dtype."""
    if x.shape != y.shape or jax.dtypes.canonicalize_dtype(x.dtype) != y.dtype:
        raise InputError(f"{where}: the layer's output must be like {whose}, {describe(x)}, got {describe(y)}")
