"""spectral_norm: a layer whose weight has the largest singular value 1, about."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.checks import check_count, check_params
from handgrad.factors import Factor, Total, is_factor
from handgrad.layers.layer import Layer, check_layer
from handgrad.layers.normalization._reparameterized import Reparameterized, pulled_back, weight_of
from handgrad.rules.normalization.spectral_norm import power_iteration, pull_back_weight, spectral_norm_forward

__all__ = ["SpectralNormParams", "add_spectral_norm", "merge_spectral_norm", "power_iterated", "spectral_norm"]


class SpectralNormParams(NamedTuple):
    """Parameters of `spectral_norm`.

    Attributes:
      a: (fan_in,) where power iteration begins. Not learned, its gradient is 0: `power_iterated` moves it.
      inside: the layer's own, V in the place of its weight.
    """

    a: Array
    inside: PyTree


def spectral_norm(layer: Layer, *, iterations: int = 1) -> Layer:
    """`layer` with V / σ for its weight, σ the estimate of V's largest singular value: SpectralNormParams(a, inside).

    Each forward pass takes a few steps of power iteration from a, and holds the vectors that it finds constant: what
    is differentiated is V / (aᵀ V b). As a layer is a pure function, the next one begins at the same a, unless the
    training step moves it:

        params = optax.apply_updates(params, updates)
        params = hg.layers.power_iterated(params)

    Args:
      layer: a linear or a convolution, or any layer whose params are a NamedTuple with one W or K.
      iterations: steps in each forward pass.
    Derivation: docs/derivations/normalization/spectral_norm.md (Miyato et al. 2018)
    """
    check_layer("spectral_norm", layer)
    check_count("spectral_norm", "iterations", iterations)

    def init(key: PRNGKeyArray, x: PyTree) -> SpectralNormParams:
        key_inside, key_a = jax.random.split(key)
        return add_spectral_norm(key_a, layer.init(key_inside, x))

    def forward(
        params: SpectralNormParams, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Reparameterized]:
        check_params("spectral_norm", params, SpectralNormParams)
        name, V = weight_of("spectral_norm", params.inside)
        W, of_weight = spectral_norm_forward(V, *power_iteration(V, params.a, iterations))
        y, inside = layer.forward(params.inside._replace(**{name: W}), x, key)
        return y, Reparameterized(of_weight, inside)

    def backward(residuals: Reparameterized, dy: PyTree) -> tuple[PyTree, SpectralNormParams]:
        dx, dinside = layer.backward(residuals.inside, dy)
        name, dW = weight_of("spectral_norm", dinside)
        V, a, b = residuals.of_weight
        (dV,) = pulled_back(dW, (V, a, b), _transpose, (_again,), (V,))
        da = Total(jnp.zeros((dW.batch, *a.shape), a.dtype)) if is_factor(dW) else jnp.zeros_like(a)
        return dx, SpectralNormParams._make((da, dinside._replace(**{name: dV})))

    return Layer(init, forward, backward, layer.couples)


def power_iterated(params: PyTree, iterations: int = 1) -> PyTree:
    """Any model's params, the `a` of every spectral norm some steps of power iteration further."""
    check_count("power_iterated", "iterations", iterations)

    def moved(node: PyTree) -> PyTree:
        if not isinstance(node, SpectralNormParams):
            return node
        _, V = weight_of("power_iterated", node.inside)
        if node.a.ndim == 2:  # a stack, as `repeat` holds
            return node._replace(a=jax.vmap(lambda V, a: power_iteration(V, a, iterations)[0])(V, node.a))
        return node._replace(a=power_iteration(V, node.a, iterations)[0])

    return jax.tree.map(moved, params, is_leaf=lambda node: isinstance(node, SpectralNormParams))


def add_spectral_norm(key: PRNGKeyArray, params: PyTree, iterations: int = 15) -> SpectralNormParams:
    """Params of `spectral_norm` around a layer with these: a from a normal vector, some steps on."""
    _, V = weight_of("add_spectral_norm", params)
    check_count("add_spectral_norm", "iterations", iterations)
    a = jax.random.normal(key, (V.size // V.shape[-1],), V.dtype)
    return SpectralNormParams(power_iteration(V, a, iterations)[0], params)


def merge_spectral_norm(params: SpectralNormParams, iterations: int = 1) -> PyTree:
    """Params of the layer inside that compute the same; `iterations` is the layer's."""
    check_params("merge_spectral_norm", params, SpectralNormParams)
    name, V = weight_of("merge_spectral_norm", params.inside)
    W, _ = spectral_norm_forward(V, *power_iteration(V, params.a, iterations))
    return params.inside._replace(**{name: W})


def _transpose(V: Array, a: Array, b: Array, dW: Array) -> tuple[Array]:
    return pull_back_weight(V, a, b, dW)[:1]


def _again(dW: Factor, shared: tuple[Array, Array, Array], weights: Array | None, options: None) -> Array:
    return pull_back_weight(*shared, dW.accumulate(weights))[0]
