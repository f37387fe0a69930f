"""Weight norm: a weight as a direction and a length, for each output feature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import as_row, check_array, check_cotangent, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide

__all__ = ["WeightNormResiduals", "weight_norm", "weight_norm_backward", "weight_norm_forward"]

Weight = Float[Array, "*fan_in n_out"]
Lengths = Float[Array, " n_out"]


class WeightNormResiduals(NamedTuple):
    """V and g, by reference: directions and norms are recomputed, which costs little beside a use of W."""

    V: Weight
    g: Lengths


def weight_norm_forward(V: Weight, g: Lengths) -> tuple[Weight, WeightNormResiduals]:
    """W = U ∘ 1 gᵀ, U = V with each column divided by its norm: column o is g_o v_o / ‖v_o‖; 0 where v_o is.

    Args:
      V: (n_in, n_out) weights, or a kernel (*size, n_in, n_out): the norm is over all axes but the last.
      g: the length of each column; it may be of any sign.
    Derivation: docs/derivations/normalization/weight_norm.md (Salimans and Kingma 2016)
    """
    check_array("weight_norm_forward", "V", V, min_ndim=2)
    check_array("weight_norm_forward", "g", g)
    check_shape("weight_norm_forward", "g", g, V.shape[-1:], f"to meet V {tuple(V.shape)}")
    U, _ = directions(V)
    return (U * as_row(g.astype(U.dtype), V.ndim)).astype(jnp.result_type(V, g)), WeightNormResiduals(V, g)


def weight_norm_backward(residuals: WeightNormResiduals, dW: Weight) -> tuple[Weight, Lengths]:
    """Pull dW back through W = U ∘ 1 gᵀ.

        dg = (U ∘ dW)ᵀ 1        dV = (dW − U ∘ 1 dgᵀ) ∘ 1 (g / ‖V‖)ᵀ

    Both are of the weight's sum over the batch. In a layer each example's dg and dV follow from its dW in the same way.

    Derivation: docs/derivations/normalization/weight_norm.md
    """
    V, g = check_residuals("weight_norm_backward", residuals, WeightNormResiduals)
    check_cotangent("weight_norm_backward", dW, V.shape, jnp.result_type(V, g), "dW", "W")
    dV, dg = pull_back_direction(V, g, dW)
    return dV.astype(V.dtype), dg.astype(g.dtype)


weight_norm = Rule(weight_norm_forward, weight_norm_backward)


def pull_back_direction(V: Weight, g: Lengths, dW: Weight) -> tuple[Weight, Lengths]:
    """dV and dg, in float32 at least."""
    U, norm = directions(V)
    dg = jnp.sum(U * dW, axis=tuple(range(V.ndim - 1)))
    along = as_row(g.astype(U.dtype), V.ndim) / norm
    return jnp.where(norm > 0, (dW - U * as_row(dg, V.ndim)) * along, 0), dg


def directions(V: Weight) -> tuple[Weight, Float[Array, "*ones n_out"]]:
    """U and ‖V‖ of each column, in float32 at least; squares of V over its largest element neither over- nor
    underflow."""
    (Vw,) = wide(V)
    axes = tuple(range(V.ndim - 1))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(Vw), axes, keepdims=True, initial=0))
    scaled = Vw / jnp.where(largest > 0, largest, 1)
    squares = jnp.sum(scaled * scaled, axes, keepdims=True)
    root = jnp.sqrt(jnp.where(largest > 0, squares, 1))
    return scaled / root, jnp.where(largest > 0, largest * root, 0)
