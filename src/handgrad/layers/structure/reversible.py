"""reversible: a block whose input is had again from its output, and n of them that keep the last output alone."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_count,
    check_params,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors import is_factor
from handgrad.factors.coupled import coupled, coupling_in
from handgrad.factors.stacked import stack
from handgrad.layers.layer import Composed, Layer, check_layer, passed_back
from handgrad.layers.structure.chain import last_coupling, split_key
from handgrad.rules.structure.reversible import couple, pull_back_coupling

__all__ = [
    "ReversibleParams",
    "reversible",
    "reversible_sequence",
]

Array = jax.Array


class ReversibleParams(NamedTuple):
    """Parameters of `reversible`.

    Attributes:
      f: of the layer that changes the first half.
      g: of the layer that changes the second half.
    """

    f: Any
    g: Any


class ReversibleResiduals(NamedTuple):
    """The output, and what is needed to run both layers again: references.

    Attributes:
      y: (batch, ..., 2 n) the output: of a sequence, of the last block.
      params: ReversibleParams, as they came.
      key: the forward pass's, so that noise is the same again; or None.
    """

    y: Array
    params: ReversibleParams
    key: Any


class CouplingResiduals(NamedTuple):
    """What both layers keep: the plain way, `residuals="save"`.

    Attributes:
      f, g: their own residuals.
    """

    f: Any
    g: Any


def reversible(f: Layer, g: Layer, *, residuals: str = "recompute") -> Layer:
    """Y₁ = X₁ + F(X₂), Y₂ = X₂ + G(Y₁), the halves of x's features, with parameters ReversibleParams(f, g).

    Args:
      f, g: layers whose output has the shape and the dtype of their input, half of x's features.
      residuals: "recompute" keeps the output alone, finds X₂ = Y₂ − G(Y₁) and X₁ = Y₁ − F(X₂) from it, and runs both
        layers once more; "save" keeps what the layers keep. The two agree to rounding.
    Raises:
      InputError: residuals of another name; at trace time, an odd number of features, params of another layer, a
        layer's output unlike its input.
    Derivation: docs/derivations/structure/reversible.md (Gomez et al., 2017)
    """
    check_layer("reversible", f)
    check_layer("reversible", g)
    check_choice("reversible", "residuals", residuals, ("recompute", "save"))

    def init(key, x):
        half = _half(x)
        key_f, key_g = jax.random.split(key)
        return ReversibleParams(f.init(key_f, half), g.init(key_g, half))

    def forward(params, x, key=None):
        check_params("reversible", params, ReversibleParams)
        _half(x)
        kept = {}

        def run(name, layer, params, key, x):
            y, kept[name] = layer.forward(params, x, key)
            return y

        key_f, key_g = split_key(key, 2)
        F, G = partial(run, "f", f, params.f, key_f), partial(run, "g", g, params.g, key_g)
        y = jnp.concatenate(couple(F, G, *_halves(x)), axis=-1)
        return y, CouplingResiduals(**kept) if residuals == "save" else ReversibleResiduals(y, params, key)

    def backward(kept, dy):
        if residuals == "save":
            kept = check_residuals("reversible", kept, CouplingResiduals)
            dY1, dY2 = _halves(dy)
            dX1, dg = g.backward(kept.g, dY2)
            dX1 = dY1 + dX1
            dX2, df = f.backward(kept.f, dX1)
            return jnp.concatenate([dX1, dY2 + dX2], axis=-1), _params_back(f, g, df, dg)
        y, params, key = check_residuals("reversible", kept, ReversibleResiduals)
        _, dx, dparams = _back(f, g, params, key, y, dy)
        return dx, dparams

    def parts(params, x, key=None):
        X1, X2 = _halves(x)
        key_f, key_g = split_key(key, 2)
        yield "f", f, params.f, X2, key_f
        yield "g", g, params.g, X1 + f.forward(params.f, X2, key_f)[0], key_g

    return Composed(init, forward, backward, parts, last_coupling((f, g)))


def reversible_sequence(f: Layer, g: Layer, n: int, *, gradients: str = "sums") -> Layer:
    """n reversible blocks as one scan that keeps nothing but the last output: memory does not grow with the depth.

    As repeat(reversible(f, g), n), whose params it has, every array with an axis of length n in front; but the backward
    pass recomputes each block's input from its output instead of keeping n of them.

    Args:
      f, g: as for reversible.
      n: how many blocks, at least 1.
      gradients: "sums" multiplies each block's factors out as soon as they are there, so that no block's activations
        outlive it; gradients are arrays, and folds over examples (weights, norms) are unavailable. "factors" leaves
        Stacked factors, whose sides are n blocks' activations once more.
    Raises:
      InputError: n is not a positive integer; gradients of another name; at trace time, as reversible, or where params
        are not stacked n times.
    Derivation: docs/derivations/structure/reversible.md (Gomez et al., 2017)
    """
    check_count("reversible_sequence", "n", n)
    check_choice("reversible_sequence", "gradients", gradients, ("sums", "factors"))
    block = reversible(f, g)

    def init(key, x):
        return jax.vmap(lambda k: block.init(k, x))(jax.random.split(key, n))

    def forward(params, x, key=None):
        check_stacked(params)

        def one_block(x, params_and_key):
            return block.forward(params_and_key[0], x, params_and_key[1])[0], None

        y, _ = meshes.scan(one_block, x, (params, keys_of(key)), length=n)
        return y, ReversibleResiduals(y, params, key)

    def backward(residuals, dy):
        y, params, key = check_residuals("reversible_sequence", residuals, ReversibleResiduals)
        check_stacked(params)

        def one_block(y_and_dy, params_and_key):
            x, dx, dparams = _back(f, g, *params_and_key, *y_and_dy)
            return (x, dx), dparams if gradients == "factors" else summed(dparams)

        (_, dx), dparams = meshes.scan(one_block, (y, dy), (params, keys_of(key)), length=n, reverse=True)
        # What lies behind a coupling in one block lies before that of the next.
        return dx, coupled(stack(dparams), block.couples or coupling_in(dparams))

    def summed(dparams):
        return jax.tree.map(lambda d: d.sum() if is_factor(d) else d, dparams, is_leaf=is_factor)

    def keys_of(key):
        return None if key is None else jax.random.split(key, n)

    def check_stacked(params):
        for leaf in jax.tree.leaves(params):
            if getattr(leaf, "shape", ())[:1] != (n,):
                raise InputError(f"reversible_sequence: params must be stacked {n} times, got {describe(leaf)}")

    def parts(params, x, key=None):
        # The last of them: all are one block, and going backwards it comes first.
        check_stacked(params)
        keys = split_key(key, n)
        for i in range(n - 1):
            x, _ = block.forward(jax.tree.map(lambda p, i=i: p[i], params), x, keys[i])
        yield str(n - 1), block, jax.tree.map(lambda p: p[-1], params), x, keys[-1]

    return Composed(init, forward, backward, parts, block.couples)


def _back(f: Layer, g: Layer, params: ReversibleParams, key: Any, y: Array, dy: Array) -> tuple[Array, Array, Any]:
    """x, dx and dparams of one block, from its output."""
    check_shape("reversible", "dy", dy, y.shape, "like y")

    def again(layer, params, key, x):
        value, kept = layer.forward(params, x, key)
        return value, partial(layer.backward, kept)

    key_f, key_g = split_key(key, 2)
    F, G = partial(again, f, params.f, key_f), partial(again, g, params.g, key_g)
    x, dx, dparams = pull_back_coupling(F, G, _halves(y), _halves(dy))
    return jnp.concatenate(x, axis=-1), jnp.concatenate(dx, axis=-1), _params_back(f, g, *dparams)


def _params_back(f: Layer, g: Layer, df: Any, dg: Any) -> ReversibleParams:
    """The block's own, in which f comes before g."""
    dg, by = passed_back(g, dg)
    df, _ = passed_back(f, df, by)
    return ReversibleParams(df, dg)


def _halves(x: Array) -> tuple[Array, Array]:
    """The first and the second half of the features."""
    X1, X2 = jnp.split(x, 2, axis=-1)
    return X1, X2


def _half(x: Any) -> jax.ShapeDtypeStruct:
    """What each half looks like."""
    check_array("reversible", "x", x, min_ndim=2)
    if x.shape[-1] % 2:
        raise InputError(f"reversible: x must have an even number of features, got {describe(x)}")
    return jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] // 2), x.dtype)
