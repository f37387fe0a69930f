"""Similarity losses: the cosine distance of two vectors, and InfoNCE, the contrastive loss of a batch."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_flags,
    check_positive,
    check_residuals,
    check_shape,
    check_target,
    describe,
)
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.activations.softmax import log_softmax_forward
from handgrad.rules.losses._losses import (
    Losses,
    check_losses_cotangent,
    per_example,
    pulled,
    target_cotangent,
    to_elements,
)

__all__ = [
    "CosineDistanceResiduals",
    "InfoNceResiduals",
    "cosine_distance",
    "cosine_distance_backward",
    "cosine_distance_forward",
    "info_nce",
    "info_nce_backward",
    "info_nce_forward",
]

Vectors = Float[Array, "batch *rest n"]
Targets = Real[Array, "batch *rest n"]
Rows = Float[Array, "batch n"]


class CosineDistanceResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Vectors
    Y: Targets


def cosine_distance_forward(A: Vectors, Y: Targets, *, epsilon: float = 1e-8) -> tuple[Losses, CosineDistanceResiduals]:
    """C_b = Σ (1 − ⟨u, v⟩) for each example, u = a / max(‖a‖, ε) and v = y / max(‖y‖, ε) along the last axis.

    1 − ⟨u, v⟩ is ½ ‖u − v‖² where both are of length 1: near 0 it keeps the digits that 1 − ⟨u, v⟩ loses.

    Args:
      epsilon: ε > 0: a vector no longer than ε is divided by ε, so that a vector of zeros costs 1.
    Derivation: docs/derivations/losses/similarity.md
    """
    where = "cosine_distance_forward"
    check_array(where, "the prediction A", A, min_ndim=2)
    check_target(where, Y, A.shape, "like the prediction A")
    check_positive(where, "epsilon", epsilon)
    a, y = wide(A, Y)
    U, V = _unit(a, epsilon), _unit(y, epsilon)
    long = _lengths(a, epsilon)[2] & _lengths(y, epsilon)[2]
    C = jnp.where(long, jnp.sum((U - V) ** 2, -1, keepdims=True) / 2, 1 - jnp.sum(U * V, -1, keepdims=True))
    return per_example(C, jnp.result_type(A, Y)), CosineDistanceResiduals(A, Y)


def cosine_distance_backward(
    residuals: CosineDistanceResiduals, dC: Losses, *, epsilon: float = 1e-8
) -> tuple[Vectors, Targets | None]:
    """Pull dC back through the cosine distance.

        dU = −dC ∘ V      dV = −dC ∘ U      dA = (dU − ⟨dU, U⟩ 1ᵀ ∘ U) / ‖A‖, dY likewise

    The part along U is subtracted, so that dU = −dC ∘ (V − U) gives the same, and keeps its digits where U ≈ V.
    A vector no longer than ε is divided by a constant: dA = dU / ε.

    Derivation: docs/derivations/losses/similarity.md
    """
    A, Y = check_residuals("cosine_distance_backward", residuals, CosineDistanceResiduals)
    dC = to_elements("cosine_distance_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    U, V = _unit(a, epsilon), _unit(y, epsilon)
    near = jnp.sum(U * V, axis=-1, keepdims=True) > 0.5
    dA = _unit_backward(a, jnp.where(near, V - U, V), V, epsilon)
    dY = _unit_backward(y, jnp.where(near, U - V, U), U, epsilon)
    return pulled(-dC, dA, A), target_cotangent(-dC, dY, Y)


cosine_distance = Rule(cosine_distance_forward, cosine_distance_backward)


class InfoNceResiduals(NamedTuple):
    """The arguments, and the log-probability of every pair.

    Attributes:
      A: queries.
      Y: keys.
      L: log softmax of each query's similarities, in float32 at least; None with residuals="recompute".
    """

    A: Rows
    Y: Rows
    L: Float[Array, "batch batch"] | None


def info_nce_forward(
    A: Rows,
    Y: Rows,
    *,
    temperature: float = 0.07,
    normalize: bool = True,
    epsilon: float = 1e-8,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Losses, InfoNceResiduals]:
    """C_b = −log softmax(⟨u_b, v_1⟩ / τ, ⟨u_b, v_2⟩ / τ, …)_b: query b must find its own key among all of the batch.

    Examples interact: C_b depends on every key, so example b's part of a gradient is not what it would be alone.

    Args:
      A, Y: queries and keys; row b of A belongs to row b of Y.
      temperature: τ > 0.
      normalize: True compares directions, u = a / max(‖a‖, ε) and v likewise; False takes u = a and v = y.
      epsilon: ε > 0, as in cosine_distance; unused without normalize.
      residuals: "save" keeps the (batch, batch) L, "recompute" takes one more product in the backward pass.
    Derivation: docs/derivations/losses/similarity.md (van den Oord et al. 2018)
    """
    where = "info_nce_forward"
    check_array(where, "the queries A", A, min_ndim=2)
    if A.ndim != 2 or len(A) == 0:
        raise InputError(f"{where}: the queries A must have shape (batch, n), one query at least, got {describe(A)}")
    check_array(where, "the keys Y", Y)
    check_shape(where, "the keys Y", Y, A.shape, "like the queries A")
    check_positive(where, "temperature", temperature)
    check_positive(where, "epsilon", epsilon)
    check_flags(where, normalize=normalize)
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    L = _log_chances(*_sides(A, Y, normalize, epsilon), temperature)
    C = -jnp.sum(jnp.where(jnp.eye(len(L), dtype=bool), L, 0), axis=1).astype(jnp.result_type(A, Y))
    return C, InfoNceResiduals(A, Y, L if residuals == "save" else None)


def info_nce_backward(
    residuals: InfoNceResiduals, dC: Losses, *, temperature: float = 0.07, normalize: bool = True, epsilon: float = 1e-8
) -> tuple[Rows, Rows]:
    """Pull dC back through InfoNCE.

        dS = dC 1ᵀ ∘ (P − I) / τ      dU = dS V      dV = dSᵀ U      dA and dY as in cosine_distance

    Derivation: docs/derivations/losses/similarity.md
    """
    A, Y, L = check_residuals("info_nce_backward", residuals, InfoNceResiduals)
    check_losses_cotangent("info_nce_backward", dC, A, jnp.result_type(A, Y))
    U, V = _sides(A, Y, normalize, epsilon)
    L = _log_chances(U, V, temperature) if L is None else L
    own = jnp.eye(len(A), dtype=L.dtype)
    P_I = own * jnp.expm1(L) + (1 - own) * jnp.exp(L)  # p − 1 keeps its digits where p is near 1
    dS = jnp.expand_dims(dC.astype(L.dtype), 1) * P_I / temperature
    dU, dV = meshes.einsum("bc,cn->bn", dS, meshes.replicated(V)), meshes.einsum("bc,bn->cn", dS, U)
    if normalize:
        a, y = wide(A, Y)
        dU, dV = _unit_backward(a, dU, dU, epsilon), _unit_backward(y, dV, dV, epsilon)
    return dU.astype(A.dtype), dV.astype(Y.dtype)


info_nce = Rule(info_nce_forward, info_nce_backward)


def _sides(A: Rows, Y: Rows, normalize: bool, epsilon: float) -> tuple[Rows, Rows]:
    """U and V, in the dtype of sums."""
    a, y = wide(A, Y)
    return (_unit(a, epsilon), _unit(y, epsilon)) if normalize else (a, y)


def _log_chances(U: Rows, V: Rows, temperature: float) -> Float[Array, "batch batch"]:
    # U / τ first: a compiler may fuse S / τ with what is subtracted from it, so that S − max S is not 0 at the largest.
    return log_softmax_forward(meshes.einsum("bn,cn->bc", U / temperature, meshes.replicated(V)))[0]


def _unit(A: Vectors, epsilon: float) -> Vectors:
    """A / max(‖A‖, ε) along the last axis, of A in the dtype of sums."""
    scale, length, long = _lengths(A, epsilon)
    return jnp.where(long, A / scale / length, A / epsilon)


def _unit_backward(A: Vectors, dU: Vectors, dU_of_short: Vectors, epsilon: float) -> Vectors:
    """dA = (dU − ⟨dU, U⟩ 1ᵀ ∘ U) / ‖A‖, or dU / ε."""
    scale, length, long = _lengths(A, epsilon)
    U = A / scale / length
    across = dU - jnp.sum(dU * U, axis=-1, keepdims=True) * U
    return jnp.where(long, across / length / scale, dU_of_short / epsilon)


def _lengths(A: Vectors, epsilon: float) -> tuple[Array, Array, Array]:
    """Two factors of ‖A‖, and where it is above ε; (batch, ..., 1) each.

    The first is the largest element, so that no square overflows, or the largest number whose inverse is normal; it
    cancels, hence stop_gradient. The second is a square root that is never taken of 0, where its slope is infinite.
    """
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(A), axis=-1, keepdims=True, initial=0))
    scale = jnp.where(scale == 0, 1, jnp.minimum(scale, 1 / float(jnp.finfo(A.dtype).tiny)))
    squares = jnp.sum((A / scale) ** 2, axis=-1, keepdims=True)
    long = scale * jnp.sqrt(squares) > epsilon
    return scale, jnp.sqrt(jnp.where(long, squares, 1)), long
