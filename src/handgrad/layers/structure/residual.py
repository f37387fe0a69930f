"""residual: a layer and the way around it."""

import jax

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Composed, Layer, check_layer
from handgrad.layers.structure.chain import split_key

__all__ = [
    "residual",
]


def residual(layer: Layer, shortcut: Layer | None = None) -> Layer:
    """y = x + layer(x): what flows back is dy itself plus dy pulled back through the layer.

    With a shortcut y = shortcut(x) + layer(x), for a layer whose output has another shape than x; parameters are a dict
    then, {"inside": layer's, "shortcut": shortcut's}.

    Args:
      layer: its output has the shape and the dtype of its input, or of the shortcut's output.
      shortcut: a layer in the place of the identity.
    Raises:
      InputError: at trace time, where the layer's output is unlike its input, or the shortcut's output.
    Derivation: docs/derivations/structure/composition.md
    """

    check_layer("residual", layer)
    if shortcut is not None:
        check_layer("residual", shortcut)
        return _with_shortcut(layer, shortcut)

    def forward(params, x, key=None):
        fx, residuals = layer.forward(params, x, key)
        check_like("residual", x, fx)
        return x + fx, residuals

    def backward(residuals, dy):
        dx, dparams = layer.backward(residuals, dy)
        return dy + dx, dparams

    def parts(params, x, key=None):
        yield "inside", layer, params, x, key

    return Composed(layer.init, forward, backward, parts, layer.couples)


def _with_shortcut(layer: Layer, shortcut: Layer) -> Layer:
    """Two layers side by side, their outputs added up: cotangents of two paths add up too."""

    def init(key, x):
        keys = jax.random.split(key)
        return {"inside": layer.init(keys[0], x), "shortcut": shortcut.init(keys[1], x)}

    def forward(params, x, key=None):
        inside, around = _of_both(params)
        keys = split_key(key, 2)
        fx, of_layer = layer.forward(inside, x, keys[0])
        sx, of_shortcut = shortcut.forward(around, x, keys[1])
        check_like("residual", sx, fx, "the shortcut's output")
        return sx + fx, (of_layer, of_shortcut)

    def backward(residuals, dy):
        of_layer, of_shortcut = residuals
        dx, inside = layer.backward(of_layer, dy)
        around_dx, around = shortcut.backward(of_shortcut, dy)
        return around_dx + dx, {"inside": inside, "shortcut": around}

    def parts(params, x, key=None):
        both, keys = _of_both(params), split_key(key, 2)
        for name, part, p, k in zip(("inside", "shortcut"), (layer, shortcut), both, keys, strict=True):
            yield name, part, p, x, k

    return Composed(init, forward, backward, parts, layer.couples or shortcut.couples)


def _of_both(params):
    """The layer's parameters and the shortcut's."""
    if not (isinstance(params, dict) and params.keys() == {"inside", "shortcut"}):
        raise InputError(f"residual: params must be a dict of 'inside' and 'shortcut', got {describe(params)}")
    return params["inside"], params["shortcut"]


def check_like(where, x, y, whose="its input"):
    """A layer's output y has its input's shape and dtype."""
    if x.shape != y.shape or jax.dtypes.canonicalize_dtype(x.dtype) != y.dtype:
        raise InputError(f"{where}: the layer's output must be like {whose}, {describe(x)}, got {describe(y)}")
