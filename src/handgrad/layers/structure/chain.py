"""chain: the place where backpropagation happens."""

from collections.abc import Sequence
from typing import Any

import jax

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Composed, Layer, check_layer, passed_back, placed

__all__ = [
    "chain",
]


def chain(*layers: Layer, **named: Layer) -> Layer:
    """One layer after the other: forwards in order, backwards in reverse.

    Args:
      *layers: positional layers; the chain's params are a tuple.
      **named: or keyword layers, in the order written; the chain's params are a dict with their names.
    Raises:
      InputError: no layer, or positional and keyword layers mixed; at trace time, whatever a layer raises, with the
        layer's place in front.
    Derivation: docs/derivations/structure/composition.md
    """
    if not layers and not named:
        raise InputError("chain: expected at least one layer, got none")
    if layers and named:
        counts = f"{len(layers)} positional and {len(named)} keyword layers"
        raise InputError(f"chain: expected layers that are all positional or all keywords, got {counts}")
    for layer in (*layers, *named.values()):
        check_layer("chain", layer)
    names = tuple(named) or tuple(str(i) for i in range(len(layers)))
    steps = [placed(name, layer) for name, layer in zip(names, layers or named.values(), strict=True)]

    def init(key, x):
        params = []
        for layer, k in zip(steps, jax.random.split(key, len(steps)), strict=True):
            params.append(layer.init(k, x))
            x, _ = jax.eval_shape(layer.forward, params[-1], x)
        return pack(params)

    def forward(params, x, key=None):
        residuals = []
        for layer, p, k in zip(steps, unpack(params), split_key(key, len(steps)), strict=True):
            x, kept = layer.forward(p, x, k)
            residuals.append(kept)
        return x, tuple(residuals)

    def backward(residuals, dx):
        _check_entries("residuals", residuals, len(steps))
        dparams, by = [], None
        for layer, kept in zip(reversed(steps), reversed(residuals), strict=True):
            dx, dp = layer.backward(kept, dx)
            dp, by = passed_back(layer, dp, by)
            dparams.append(dp)
        return dx, pack(reversed(dparams))

    def parts(params, x, key=None):
        inside_it = layers or named.values()
        for name, layer, p, k in zip(names, inside_it, unpack(params), split_key(key, len(steps)), strict=True):
            yield name, layer, p, x, k
            x, _ = layer.forward(p, x, k)

    def pack(values):
        return dict(zip(names, values, strict=True)) if named else tuple(values)

    def unpack(params):
        _check_entries("params", params, names if named else len(names))
        return [params[name] for name in names] if named else params

    return Composed(init, forward, backward, parts, last_coupling(steps))


def last_coupling(steps: Sequence[Layer]) -> str | None:
    """What the last of the layers that couple says: of those one after the other, it decides what is behind."""
    return next((layer.couples for layer in reversed(steps) if layer.couples), None)


def split_key(key: jax.Array | None, n: int) -> Any:
    """n keys from one, or n times None: no key, no noise."""
    return [None] * n if key is None else jax.random.split(key, n)


def _check_entries(what: str, value: Any, expected: tuple[str, ...] | int) -> None:
    """`value` has one entry for each layer: a tuple of so many, or a dict of these names."""
    if isinstance(expected, int):
        fits = type(value) is tuple and len(value) == expected
    else:
        fits = isinstance(value, dict) and value.keys() == set(expected)
    if not fits:
        wanted = f"a tuple of {expected}" if isinstance(expected, int) else _entries(dict.fromkeys(expected))
        raise InputError(f"chain: {what} must be {wanted}, one for each layer, got {_entries(value)}")


def _entries(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    return f"a tuple of {len(value)}" if type(value) is tuple else describe(value)
