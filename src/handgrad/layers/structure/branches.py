"""branches: layers side by side, each with an input of its own."""

import functools
import operator

import jax
from jaxtyping import PyTree

from handgrad.checks import InputError, check_array, describe
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.structure.chain import check_entries, last_coupling, split_key

__all__ = ["added", "branches"]


def branches(*layers: Layer) -> Layer:
    """(y₀, y₁, …) = (layer₀(x₀), layer₁(x₁), …): x, y and params are tuples with an entry for each layer.

    With `shared`, the two encoders of a siamese network, or of a contrastive loss:

        >>> import handgrad as hg
        >>> encoder = hg.chain(hg.linear(8), hg.tanh(), hg.linear(2))
        >>> model = hg.shared(hg.branches(encoder, encoder), {"1": "0"})

    Raises:
      InputError: no layer; at trace time, another number of inputs, params or cotangents.
    Derivation: docs/derivations/structure/shared.md
    """
    if not layers:
        raise InputError("branches: expected at least one layer, got none")
    for layer in layers:
        check_layer("branches", layer)
    each, n = [placed(str(i), layer) for i, layer in enumerate(layers)], len(layers)

    def init(key, x):
        check_entries("branches", "x", x, n)
        return tuple(layer.init(k, x) for layer, k, x in zip(each, jax.random.split(key, n), x, strict=True))

    def forward(params, x, key=None):
        check_entries("branches", "params", params, n)
        check_entries("branches", "x", x, n)
        both = [layer.forward(*own) for layer, *own in zip(each, params, x, split_key(key, n), strict=True)]
        return _transposed(both)

    def backward(residuals, dy):
        check_entries("branches", "residuals", residuals, n)
        check_entries("branches", "dy", dy, n)
        return _transposed([layer.backward(*own) for layer, *own in zip(each, residuals, dy, strict=True)])

    return composed(init, forward, backward, last_coupling(each))


def added() -> Layer:
    """y = x₀ + x₁ + …, of a tuple of arrays of one shape and dtype: what brings branches together again.

    Derivation: docs/derivations/structure/branches.md
    """

    def init(key, x):
        return ()

    def forward(params, x, key=None):
        if not (type(x) is tuple and x):
            raise InputError(f"added: x must be a tuple of arrays, got {describe(x)}")
        for one in x:
            check_array("added", "x", one)
            if (one.shape, one.dtype) != (x[0].shape, x[0].dtype):
                raise InputError(f"added: x must have entries like the first, {describe(x[0])}, got {describe(one)}")
        return functools.reduce(operator.add, x), ((),) * len(x)

    def backward(residuals, dy):
        return (dy,) * len(residuals), ()

    return Layer(init, forward, backward)


def _transposed(pairs: list[tuple[PyTree, PyTree]]) -> tuple[tuple[PyTree, ...], tuple[PyTree, ...]]:
    """The first of each pair, and the second."""
    firsts, seconds = zip(*pairs, strict=True)
    return firsts, seconds
