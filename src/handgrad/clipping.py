"""Clipped gradients, Σ_b min(1, C / ‖g_b‖) g_b, in one backward pass: norms are a fold, clipping is a weight."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.backprop import value_and_factors
from handgrad.factors import Factor, is_factor
from handgrad.layers import Layer, Loss
from handgrad.per_example import sq_norms
from handgrad.shapes import InputError, check_choice, check_positive, check_shape

Array = jax.Array


class ClippedAux(NamedTuple):
    """What is known of each example before clipping; it is not private.

    Attributes:
      values: (batch,) losses, or None.
      grad_norms: (batch,) ‖g_b‖, or None; with style="layer" a dict of these, by the layer's path.
    """

    values: Array | None
    grad_norms: Any


def clipped_grad(
    model: Layer,
    loss: Loss,
    *,
    l2_clip_norm: float,
    style: str = "global",
    clip_fn: Callable[[Array], Array] | None = None,
    normalize_by: float = 1.0,
    return_values: bool = False,
    return_norms: bool = False,
    nan_safe: bool = True,
) -> Callable[..., Any]:
    """Σ_b w_b g_b / normalize_by with w_b = min(1, C / ‖g_b‖): no example moves the sum by more than C.

    What jax_privacy's clipped_grad computes, with the same names where they mean the same, from a model and a loss in
    the place of a function: one forward and one backward pass, and no example's gradient in memory.

    Args:
      model, loss: what to compose; a model that couples examples (batch_norm) has no such gradients.
      l2_clip_norm: C, positive.
      style: "global" clips all parameters together; "layer" each layer's to C / √layers, which bounds the whole by C
        too. A layer is the parameters of one NamedTuple, as W and b of LinearParams.
      clip_fn: ‖g_b‖ (batch,) -> w_b (batch,), in min(1, C / ‖g_b‖)'s place; keeping w_b ‖g_b‖ ≤ C is then its business.
      normalize_by: a positive number, say the expected batch size.
      return_values, return_norms: True returns (grads, ClippedAux).
      nan_safe: True leaves out examples whose norm is NaN or infinite; False lets them make the sum NaN. A norm is the
        root of a sum of squares, and infinite where that overflows: from about 10¹⁹ on in float32.
    Returns:
      (params, x, target, key=None, is_padding_example=None) -> grads like params; is_padding_example (batch,) of
      booleans leaves examples out, whatever they hold.
    Raises:
      InputError: C or normalize_by is not positive; an unknown style; at trace time, as `value_and_factors` and
        `sq_norms`.
    Source: docs/factors.md (Abadi et al. 2016; Bu et al. 2022)
    """
    check_positive("clipped_grad", "l2_clip_norm", l2_clip_norm)
    check_positive("clipped_grad", "normalize_by", normalize_by)
    check_choice("clipped_grad", "style", style, ("global", "layer"))
    losses_and_factors = value_and_factors(model, loss)

    def grads_of_clipped(params, x, target, key=None, is_padding_example=None):
        losses, factors = losses_and_factors(params, x, target, key)
        left_out = jnp.zeros(losses.shape, bool)
        if is_padding_example is not None:
            check_shape(
                "clipped_grad", "is_padding_example", is_padding_example, losses.shape, "(one for each example)"
            )
            left_out = jnp.asarray(is_padding_example, bool)
        norms = _norms(factors, style)
        if nan_safe:
            left_out = left_out | ~jnp.all(jnp.isfinite(jnp.stack(list(norms.values()))), axis=0)
        bound = l2_clip_norm / math.sqrt(len(norms))

        def of_leaf(path, factor: Factor) -> Array:
            norm = norms[_layer(path, style)]
            weights = jnp.minimum(1, bound / norm) if clip_fn is None else clip_fn(norm)
            check_shape("clipped_grad", "what clip_fn gives", weights, losses.shape, "(one for each example)")
            if nan_safe or is_padding_example is not None:
                # A weight of 0 is not enough: 0 times NaN is NaN.
                factor, weights = factor.pick(without), jnp.where(left_out, 0, weights)
            # Divided before it is rounded: a mean may fit where the sum does not.
            return (factor.accumulate(weights) / normalize_by).astype(factor.dtype)

        def without(a: Array) -> Array:
            return jnp.where(jnp.expand_dims(left_out, tuple(range(1, a.ndim))), 0, a)

        grads = jax.tree_util.tree_map_with_path(of_leaf, factors, is_leaf=is_factor)
        if not (return_values or return_norms):
            return grads
        return grads, ClippedAux(
            losses if return_values else None,
            (norms[""] if style == "global" else norms) if return_norms else None,
        )

    return grads_of_clipped


def _norms(factors: Any, style: str) -> dict[str, Array]:
    """‖g_b‖ of each layer, or of all of them under the name ""."""
    squares: dict[str, Array] = {}
    for path, square in jax.tree.leaves_with_path(sq_norms(factors, per_leaf=True)):
        name = _layer(path, style)
        squares[name] = squares[name] + square if name in squares else square
    if not squares:
        raise InputError("clipped_grad: expected a model with parameters, got none")
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def _layer(path: Any, style: str) -> str:
    """The layer that a parameter belongs to: its path without the last name."""
    return jax.tree_util.keystr(path[:-1], simple=True, separator=".") if style == "layer" else ""
