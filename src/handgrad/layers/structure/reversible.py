"""reversible: a block whose input is recomputed from its output, and n of them that keep the last output alone."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

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
from handgrad.factors.coupled import coupled, coupling_in
from handgrad.factors.stacked import stack
from handgrad.layers.layer import Layer, check_layer, composed, passed_back, placed
from handgrad.layers.structure.chain import last_coupling, split_key
from handgrad.layers.structure.repeat import check_stacked
from handgrad.layers.sums import LoopResiduals
from handgrad.rules.structure.reversible import couple, pull_back_coupling

__all__ = ["ReversibleParams", "reversible", "reversible_sequence"]


class ReversibleParams(NamedTuple):
    """Parameters of `reversible`.

    Attributes:
      f: of the layer that changes the first half.
      g: of the layer that changes the second half.
    """

    f: PyTree
    g: PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReversibleResiduals(LoopResiduals):
    """The output, and what is needed to run both layers again: references.

    Attributes:
      y: (batch, ..., 2 n) the output: of a sequence, of the last block.
      params: ReversibleParams, as they came.
      key: the forward pass's, so that noise is the same again; or None.
    """

    y: Float[Array, "batch ... 2*n"]
    params: ReversibleParams
    key: PRNGKeyArray | None


class CouplingResiduals(NamedTuple):
    """What both layers keep: the plain way, `residuals="save"`.

    Attributes:
      f, g: their own residuals.
    """

    f: PyTree
    g: PyTree


def reversible(f: Layer, g: Layer, *, residuals: Literal["save", "recompute"] = "recompute") -> Layer:
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
    f, g = placed("f", f), placed("g", g)

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
        kept = check_residuals("reversible", kept, ReversibleResiduals)
        _, dx, dparams = _back(f, g, kept, dy)
        return dx, dparams

    return composed(init, forward, backward, last_coupling((f, g)))


def reversible_sequence(f: Layer, g: Layer, n: int, *, gradients: Literal["sums", "factors"] = "sums") -> Layer:
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
    block = placed(None, reversible(f, g))
    f, g = placed("f", f), placed("g", g)

    def init(key, x):
        return jax.vmap(lambda k: block.init(k, x))(jax.random.split(key, n))

    def forward(params, x, key=None):
        check_stacked("reversible_sequence", "params", params, n)

        def one_block(x, params_and_key):
            return block.forward(params_and_key[0], x, params_and_key[1])[0], None

        y, _ = meshes.scan(one_block, x, (params, keys_of(key)), length=n)
        return y, ReversibleResiduals(y, params, key)

    def backward(residuals, dy):
        residuals = check_residuals("reversible_sequence", residuals, ReversibleResiduals)
        check_stacked("reversible_sequence", "params", residuals.params, n)

        def one_block(y_and_dy, params_and_key):
            y, dy = y_and_dy
            kept = ReversibleResiduals(y, *params_and_key, sums=math.inf if gradients == "sums" else residuals.sums)
            x, dx, dparams = _back(f, g, kept, dy)
            return (x, dx), kept.as_wanted(dparams)

        each = residuals.params, keys_of(residuals.key)
        (_, dx), dparams = meshes.scan(one_block, (residuals.y, dy), each, length=n, reverse=True)
        # What lies behind a coupling in one block lies before that of the next.
        return dx, coupled(stack(dparams), block.couples or coupling_in(dparams))

    def keys_of(key):
        return None if key is None else jax.random.split(key, n)

    return composed(init, forward, backward, block.couples)


def _back(f: Layer, g: Layer, residuals: ReversibleResiduals, dy: Array) -> tuple[Array, Array, ReversibleParams]:
    """x, dx and dparams of one block, from its output."""
    y, params = residuals.y, residuals.params
    check_shape("reversible", "dy", dy, y.shape, "like y")

    def again(layer, params, key, x):
        value, kept = layer.forward(params, x, key)
        return value, partial(layer.backward, residuals.told(kept))

    key_f, key_g = split_key(residuals.key, 2)
    F, G = partial(again, f, params.f, key_f), partial(again, g, params.g, key_g)
    x, dx, dparams = pull_back_coupling(F, G, _halves(y), _halves(dy))
    return jnp.concatenate(x, axis=-1), jnp.concatenate(dx, axis=-1), _params_back(f, g, *dparams)


def _params_back(f: Layer, g: Layer, df: PyTree, dg: PyTree) -> ReversibleParams:
    """The block's own, in which f comes before g."""
    dg, by = passed_back(g, dg)
    df, _ = passed_back(f, df, by)
    return ReversibleParams(df, dg)


def _halves(x: Array) -> tuple[Array, Array]:
    """The first and the second half of the features."""
    X1, X2 = jnp.split(x, 2, axis=-1)
    return X1, X2


def _half(x: Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What each half looks like."""
    check_array("reversible", "x", x, min_ndim=2)
    if x.shape[-1] % 2:
        raise InputError(f"reversible: x must have an even number of features, got {describe(x)}")
    return jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] // 2), x.dtype)
