"""weight_norm: a layer whose weight is learned as directions and lengths."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad import meshes
from handgrad.checks import check_params
from handgrad.factors import Correlation, Factor, Hadamard, Outer
from handgrad.layers.layer import Layer, check_layer
from handgrad.layers.normalization._reparameterized import Reparameterized, pulled_back, weight_of
from handgrad.rules.images._forms import convolve
from handgrad.rules.normalization.weight_norm import directions, pull_back_direction, weight_norm_forward

__all__ = ["WeightNormParams", "add_weight_norm", "merge_weight_norm", "weight_norm"]


class WeightNormParams(NamedTuple):
    """Parameters of `weight_norm`.

    Attributes:
      g: (n_out,) the length of each column of the weight.
      inside: the layer's own, V in the place of its weight.
    """

    g: Array
    inside: PyTree


def weight_norm(layer: Layer) -> Layer:
    """`layer` with g_o v_o / ‖v_o‖ for each column of its weight: WeightNormParams(g, inside).

    Every parameter has a factor, so that each example's norms are right; those of V and g are recomputed from the
    layer's own.

        >>> import handgrad as hg
        >>> model = hg.chain(hg.weight_norm(hg.linear(8)), hg.tanh(), hg.weight_norm(hg.linear(1)))

    Args:
      layer: a linear or a convolution, or any layer whose params are a NamedTuple with one W or K. (In a
        transposed_convolution the last axis, which keeps a length for each, is the inputs', as PyTorch's dim=0.)
    Derivation: docs/derivations/normalization/weight_norm.md (Salimans and Kingma 2016)
    """
    check_layer("weight_norm", layer)

    def init(key: PRNGKeyArray, x: PyTree) -> WeightNormParams:
        return add_weight_norm(layer.init(key, x))

    def forward(params: WeightNormParams, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, Reparameterized]:
        check_params("weight_norm", params, WeightNormParams)
        name, V = weight_of("weight_norm", params.inside)
        W, of_weight = weight_norm_forward(V, params.g)
        y, inside = layer.forward(params.inside._replace(**{name: W}), x, key)
        return y, Reparameterized(of_weight, inside)

    def backward(residuals: Reparameterized, dy: PyTree) -> tuple[PyTree, WeightNormParams]:
        dx, dinside = layer.backward(residuals.inside, dy)
        name, dW = weight_of("weight_norm", dinside)
        of_weight = tuple(residuals.of_weight)
        dV, dg = pulled_back(dW, of_weight, pull_back_direction, (_directions_again, _lengths_again), of_weight)
        return dx, WeightNormParams(dg, dinside._replace(**{name: dV}))

    return Layer(init, forward, backward, layer.couples)


def add_weight_norm(params: PyTree) -> WeightNormParams:
    """Directions and lengths of a layer's weight; what the layer computes stays the same."""
    _, V = weight_of("add_weight_norm", params)
    return WeightNormParams(jnp.ravel(directions(V)[1]).astype(V.dtype), params)


def merge_weight_norm(params: WeightNormParams) -> PyTree:
    """Params of the layer inside that compute the same."""
    check_params("merge_weight_norm", params, WeightNormParams)
    name, V = weight_of("merge_weight_norm", params.inside)
    return params.inside._replace(**{name: weight_norm_forward(V, params.g)[0]})


def _directions_again(dW: Factor, shared: tuple[Array, Array], weights: Array | None, options: None) -> Array:
    return pull_back_direction(*shared, dW.accumulate(weights))[0]


def _lengths_again(dW: Factor, shared: tuple[Array, Array], weights: Array | None, options: None) -> Array:
    """Σ_b w_b dg_b. Of AᵀΔ it is Σ (A U) ∘ Δ, so that no example's dW is materialized for it."""
    U = directions(shared[0])[0]
    if isinstance(dW, Outer):
        return Hadamard(meshes.matmul(dW.A, U.astype(dW.A.dtype)), dW.Delta).accumulate(weights)
    if isinstance(dW, Correlation):
        return Hadamard(convolve(dW.X, U.astype(dW.X.dtype), dW.window), dW.Delta).accumulate(weights)
    return pull_back_direction(*shared, dW.accumulate(weights))[1]
