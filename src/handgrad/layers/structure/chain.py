"""chain: the place where backpropagation happens."""

from collections.abc import Sequence

import jax
from jaxtyping import PRNGKeyArray, PyTree

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, check_layer, composed, passed_back, placed

__all__ = ["chain"]


def chain(*layers: Layer, **named: Layer) -> Layer:
    """One layer after the other: forwards in order, backwards in reverse.

    Every place has parameters of its own, also where one layer stands at two: of l = linear(4), chain(l, tanh(), l) has
    two weights. `shared` makes them one.

        >>> import handgrad as hg
        >>> model = hg.chain(hg.linear(3), hg.tanh(), hg.linear(2))
        >>> params = model.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 4), "float32"))
        >>> jax.tree.map(lambda p: p.shape, params)
        (LinearParams(W=(4, 3), b=(3,)), (), LinearParams(W=(3, 2), b=(2,)))

    Args:
      *layers: positional layers; the chain's params are a tuple.
      **named: or keyword layers, in the order written; the chain's params are a dict with their names.
    Raises:
      InputError: no layer, or positional and keyword layers mixed; at trace time, whatever a layer raises, with the
        layer's place in front.
    Derivation: docs/derivations/structure/chain.md
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
        check_entries("chain", "residuals", residuals, len(steps))
        dparams, by = [], None
        for layer, kept in zip(reversed(steps), reversed(residuals), strict=True):
            dx, dp = layer.backward(kept, dx)
            dp, by = passed_back(layer, dp, by)
            dparams.append(dp)
        return dx, pack(reversed(dparams))

    def pack(values):
        return dict(zip(names, values, strict=True)) if named else tuple(values)

    def unpack(params):
        check_entries("chain", "params", params, names if named else len(names))
        return [params[name] for name in names] if named else params

    return composed(init, forward, backward, last_coupling(steps))


def last_coupling(steps: Sequence[Layer]) -> str | None:
    """What the last of the layers that couple says: of those one after the other, it decides what is behind."""
    return next((layer.couples for layer in reversed(steps) if layer.couples), None)


def split_key(key: PRNGKeyArray | None, n: int) -> Sequence[PRNGKeyArray | None]:
    """n keys from one, or n times None: no key, no noise."""
    return [None] * n if key is None else list(jax.random.split(key, n))


def check_entries(where: str, what: str, value: PyTree, expected: Sequence[str] | int) -> None:
    """`value` has one entry for each layer: a tuple of so many, or a dict of these names."""
    if isinstance(expected, int):
        fits = type(value) is tuple and len(value) == expected
    else:
        fits = isinstance(value, dict) and value.keys() == set(expected)
    if not fits:
        wanted = f"a tuple of {expected}" if isinstance(expected, int) else _entries(dict.fromkeys(expected))
        raise InputError(f"{where}: {what} must be {wanted}, one for each layer, got {_entries(value)}")


def _entries(value: PyTree) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    return f"a tuple of {len(value)}" if type(value) is tuple else describe(value)
