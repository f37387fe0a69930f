"""Clipped gradients, Σ_b min(1, C / ‖g_b‖) g_b, in one backward pass (ghost clipping): the norms are a fold over the
factors, and clipping is a weight."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from handgrad.backprop import Key, value_and_factors
from handgrad.checks import InputError, check_choice, check_positive, check_shape, path_name
from handgrad.factors import Factor, is_factor
from handgrad.factors.coupled import coupling_in
from handgrad.folds.per_example import map_factors
from handgrad.layers import Layer, Loss

Place = tuple[jax.tree_util.KeyPath, tuple[int, ...]]  # of a layer: its path, and the shape of its stack


class ClippedAux(NamedTuple):
    """Losses and norms of each example before clipping; they are not private.

    Attributes:
      values: (batch,) losses, 0 for padding; or None.
      grad_norms: (batch,) ‖g_b‖, 0 for padding; or None. With style="layer" a dict of these, by the layer's path;
        (layers, batch) for a layer under `repeat`.
    """

    values: Float[Array, " batch"] | None
    grad_norms: Array | dict[str, Array] | None


class ClippedGrad(Protocol):
    """The gradient, or (gradient, ClippedAux)."""

    def __call__(
        self,
        params: PyTree,
        x: PyTree,
        target: PyTree,
        key: Key = None,
        is_padding_example: Array | np.ndarray | None = None,
    ) -> PyTree: ...


def clipped_grad(
    model: Layer,
    loss: Loss,
    *,
    l2_clip_norm: float,
    style: Literal["global", "layer"] = "global",
    clip_fn: Callable[[Array], Array] | None = None,
    normalize_by: float = 1.0,
    return_values: bool = False,
    return_norms: bool = False,
    nan_safe: bool = True,
) -> ClippedGrad:
    """Σ_b w_b g_b / normalize_by with w_b = min(1, C / ‖g_b‖): no example moves the sum by more than C.

    jax_privacy's clipped_grad, with the same names where they mean the same, of a model and a loss in place of a
    function: ghost clipping takes one forward and one backward pass, and materializes no example's gradient.

    Args:
      model, loss: what to compose. Where one of them couples the examples (batch_norm, info_nce) no bound holds: an
        example also changes the others' gradients, those of later layers too.
      l2_clip_norm: C, positive.
      style: "global" clips all parameters together; "layer" each layer's to C / √layers, which bounds the whole by C
        too. A layer is the parameters of one NamedTuple, as W and b of LinearParams, or an array outside of any;
        under `repeat`, each of the n layers is one.
      clip_fn: ‖g_b‖ (batch,) -> w_b (batch,), in place of min(1, C / ‖g_b‖); it then has to keep w_b ‖g_b‖ ≤ C.
        An example that is left out has norm 0 there, and its weight is not used.
      normalize_by: a positive number, say the expected batch size.
      return_values, return_norms: True returns (grads, ClippedAux).
      nan_safe: True leaves out examples whose norm is NaN or infinite; False lets them make the sum NaN. A norm is the
        root of a sum of squares, and infinite where that overflows: from about 10¹⁹ on in float32.
    Returns:
      (params, x, target, key=None, is_padding_example=None) -> grads like params; the booleans is_padding_example
      (batch,) leave examples out, whatever they hold: grads and ClippedAux are those of the batch without them, with
      0 in their places.
    Raises:
      InputError: C or normalize_by is not positive; an unknown style; at trace time, a model or a loss that couples
        the examples, and as `value_and_factors` and `sq_norms`.
    Source: docs/factors.md (Abadi et al. 2016; Bu et al. 2022)
    """
    check_positive("clipped_grad", "l2_clip_norm", l2_clip_norm)
    check_positive("clipped_grad", "normalize_by", normalize_by)
    check_choice("clipped_grad", "style", style, ("global", "layer"))
    losses_and_factors = value_and_factors(model, loss)

    def grads_of_clipped(
        params: PyTree, x: PyTree, target: PyTree, key: Key = None, is_padding_example: Array | np.ndarray | None = None
    ) -> PyTree:
        losses, factors = losses_and_factors(params, x, target, key)
        by = loss.couples or model.couples or coupling_in(factors)
        if by is not None:
            raise InputError(f"clipped_grad: no example may enter another's gradient, but {by}")
        padding = jnp.zeros_like(losses, dtype=bool)
        if is_padding_example is not None:
            check_shape(
                "clipped_grad", "is_padding_example", is_padding_example, losses.shape, "(one for each example)"
            )
            padding = jnp.asarray(is_padding_example, bool)
        layers, norms = _norms(factors, style)
        norms = {layer: jnp.where(padding, 0, norm) for layer, norm in norms.items()}
        left_out = padding
        if nan_safe:
            for norm in norms.values():
                left_out = left_out | ~jnp.all(jnp.isfinite(norm), axis=tuple(range(norm.ndim - 1)))
        bound = l2_clip_norm / math.sqrt(sum(math.prod(norm.shape[:-1]) for norm in norms.values()))

        def weights_of(norm: Array) -> Array:
            if norm.ndim > 1:
                return jax.vmap(weights_of)(norm)
            norm = jnp.where(left_out, 0, norm)
            weights = jnp.minimum(1, bound / norm) if clip_fn is None else clip_fn(norm)
            check_shape("clipped_grad", "what clip_fn gives", weights, losses.shape, "(one for each example)")
            return jnp.where(left_out, 0, weights)

        def without(a: Array) -> Array:
            return jnp.where(jnp.expand_dims(left_out, tuple(range(1, a.ndim))), 0, a)

        def clipped(factor: Factor, layer: Place) -> Array:
            if nan_safe or is_padding_example is not None:
                factor = factor.pick(without)  # a weight of 0 is not enough: 0 times NaN is NaN
            # Divided before it is rounded: a mean may fit where the sum does not.
            return (_weighted_sum(factor, weights[layer]) / normalize_by).astype(factor.dtype)

        weights = {layer: weights_of(norm) for layer, norm in norms.items()}
        leaves, structure = jax.tree.flatten(factors, is_leaf=is_factor)
        grads = jax.tree.unflatten(structure, map(clipped, leaves, layers))
        if not (return_values or return_norms):
            return grads
        by_name = {path_name(path): norm for (path, _), norm in norms.items()}
        return grads, ClippedAux(
            jnp.where(padding, 0, losses) if return_values else None,
            (by_name if style == "layer" else by_name[""]) if return_norms else None,
        )

    return grads_of_clipped


def _norms(factors: PyTree[Factor], style: str) -> tuple[list[Place], dict[Place, Array]]:
    """The layer that each parameter belongs to, and ‖g_b‖ of each layer: (batch,), or (layers, batch) of a stack."""
    by_layer = style == "layer"
    squares = map_factors("sq_norms", _sq_norms if by_layer else lambda factor: factor.sq_norms(), factors)
    layers, sums = list[Place](), dict[Place, Array]()
    for path, square in jax.tree.leaves_with_path(squares):
        of_tuple = bool(path) and isinstance(path[-1], jax.tree_util.GetAttrKey)
        layer = (path[:-1] if of_tuple else path, square.shape[:-1]) if by_layer else ((), ())
        layers.append(layer)
        sums[layer] = sums[layer] + square if layer in sums else square
    if not sums:
        raise InputError("clipped_grad: expected a model with parameters, got none")
    return layers, {layer: jnp.sqrt(square) for layer, square in sums.items()}


def _sq_norms(factor: Factor) -> Array:
    """(batch,), with an axis in front for the layers of a stack."""
    layers = factor.layers()
    return factor.sq_norms() if layers is None else jax.vmap(_sq_norms)(layers)


def _weighted_sum(factor: Factor, weights: Array) -> Array:
    """Σ_b w_b g_b, where `weights` are for each layer of a stack, not yet rounded to the parameter's dtype."""
    layers = factor.layers() if weights.ndim > 1 else None
    return factor.accumulate(weights) if layers is None else jax.vmap(_weighted_sum)(layers, weights)
