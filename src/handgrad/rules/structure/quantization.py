"""Quantization that learns: vectors of a codebook (VQ), and whole multiples of a step (LSQ).

These are estimators: what rounds has no slope, and the backward pass is that of a surrogate, by design.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_cotangent,
    check_count,
    check_flags,
    check_positive,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors import PerExample, Scatter, Total
from handgrad.rule import Rule
from handgrad.rules._straight_through import straight_through
from handgrad.rules._wide import wide

__all__ = [
    "LsqQuantizeResiduals",
    "VectorQuantizeResiduals",
    "lsq_quantize",
    "lsq_quantize_backward",
    "lsq_quantize_forward",
    "vector_quantize",
    "vector_quantize_backward",
    "vector_quantize_forward",
]

Vectors = Float[Array, "batch *rest n"]
Losses = Float[Array, " batch"]
Codebook = Float[Array, "codes n"]
Elements = Float[Array, "batch *rest"]
Ids = Integer[Array, "batch *rest"]
Step = Float[Array, ""] | Float[Array, " n"]


class VectorQuantizeResiduals(NamedTuple):
    """The arguments X and codebook (references, no copies), and ids: the code that each vector became."""

    X: Vectors
    codebook: Codebook
    ids: Ids


def vector_quantize_forward(
    X: Vectors, codebook: Codebook, *, beta: float = 0.25
) -> tuple[tuple[Vectors, Losses], VectorQuantizeResiduals]:
    """Y = E, each vector's nearest code, and C_b = Σ ‖e − x‖² + β Σ ‖x − e‖²: the codebook's loss and the commitment.

    Args:
      X: vectors along the last axis.
      codebook: a code in each row. Of equally near ones, the first.
      beta: β > 0, the weight of the commitment, which keeps x near its code; the other term moves the code alone.
    Derivation: docs/derivations/structure/quantization.md (van den Oord et al. 2017)
    """
    where = "vector_quantize_forward"
    check_array(where, "X", X, min_ndim=2)
    check_array(where, "codebook", codebook)
    if codebook.ndim != 2 or codebook.shape[0] == 0:
        raise InputError(f"{where}: codebook must have shape (codes, n), at least one code, got {describe(codebook)}")
    check_shape(where, "X", X, (*X.shape[:-1], codebook.shape[1]), f"to meet the codebook {codebook.shape}")
    check_positive(where, "beta", beta)
    x, codes = wide(X, codebook)
    scores = jnp.sum(codes * codes, axis=1) / 2  # ‖x − e‖² / 2, without ‖x‖² / 2
    ids = jnp.argmin(jnp.expand_dims(scores, tuple(range(x.ndim - 1))) - meshes.inner(x, codes), axis=-1)
    E = meshes.take_rows(codes, ids, jnp.nan)
    moves_codes = jnp.square(E - jax.lax.stop_gradient(x))
    C = moves_codes + beta * jnp.square(x - jax.lax.stop_gradient(E))
    dtype = jnp.result_type(X, codebook)
    losses = jnp.sum(C, axis=tuple(range(1, C.ndim))).astype(dtype)
    return (straight_through(E, x).astype(dtype), losses), VectorQuantizeResiduals(X, codebook, ids)


def vector_quantize_backward(
    residuals: VectorQuantizeResiduals, dY_dC: tuple[Vectors, Losses], *, beta: float = 0.25
) -> tuple[Vectors, Scatter]:
    """Pass dY straight through to X, and pull dC back through both losses, each with one side held.

        dX = dY + 2 β dC ∘ (X − E)      dcodebook = Σ_t e_id (2 dC (e − x))ᵀ      e_id is the one-hot row of id

    Derivation: docs/derivations/structure/quantization.md
    """
    where = "vector_quantize_backward"
    X, codebook, ids = check_residuals(where, residuals, VectorQuantizeResiduals)
    dtype = jnp.result_type(X, codebook)
    if not (isinstance(dY_dC, tuple) and len(dY_dC) == 2):
        raise InputError(f"{where}: expected a pair of cotangents (dY, dC), got {describe(dY_dC)}")
    dY, dC = dY_dC
    check_cotangent(where, dY, X.shape, dtype)
    check_cotangent(where, dC, X.shape[:1], dtype, name="dC", of="C")
    x, codes, dY, dC = wide(X, codebook, dY, dC)
    pull = 2 * jnp.expand_dims(dC, tuple(range(1, X.ndim))) * (x - meshes.take_rows(codes, ids, jnp.nan))
    dX = (dY + beta * pull).astype(X.dtype)
    return dX, Scatter(ids, (-pull).astype(dtype), codebook.shape[0], codebook.dtype)


vector_quantize = Rule(vector_quantize_forward, vector_quantize_backward)


class LsqQuantizeResiduals(NamedTuple):
    """The arguments X and s: references, no copies."""

    X: Elements
    s: Step


def lsq_quantize_forward(
    X: Elements, s: Step, *, bits: int = 8, signed: bool = True, gradient_scale: float | None = None
) -> tuple[Elements, LsqQuantizeResiduals]:
    """Y = s · round(clip(X / s, −N, P)): whole multiples of a learned step.

    Args:
      s: the step, positive: one number, or one for each feature of the last axis.
      bits: at least 2, or 1 if not signed.
      signed: True has N = 2^(bits − 1) and P = N − 1; False, for what is never negative, N = 0 and P = 2^bits − 1.
      gradient_scale: ds is multiplied by it; None stands for 1 / √(n P), n the numbers of an example that share a step.
        For weights, whose first axis is no batch, say 1 / √(size · P).
    Derivation: docs/derivations/structure/quantization.md (Esser et al. 2020)
    """
    where = "lsq_quantize_forward"
    check_array(where, "X", X, min_ndim=1)
    check_array(where, "s", s)
    if s.ndim:
        check_shape(where, "s", s, X.shape[-1:] if X.ndim > 1 else (), "(one for each feature, or one number)")
    check_count(where, "bits", bits)
    check_flags(where, signed=signed)
    if bits < 1 + signed:
        raise InputError(f"{where}: bits must be at least 2 for signed numbers, got {bits}")
    if gradient_scale is not None:
        check_positive(where, "gradient_scale", gradient_scale)
    x, step = _against(X, s)
    scale = _scale(X, s, bits, signed, gradient_scale)
    step = jax.lax.stop_gradient(step) + scale * (step - jax.lax.stop_gradient(step))
    q, inside = _steps(x / step, bits, signed)
    Y = straight_through(jnp.round(q), jnp.where(inside, x / step, 0)) * step
    return Y.astype(jnp.result_type(X, s)), LsqQuantizeResiduals(X, s)


def lsq_quantize_backward(
    residuals: LsqQuantizeResiduals,
    dY: Elements,
    *,
    bits: int = 8,
    signed: bool = True,
    gradient_scale: float | None = None,
) -> tuple[Elements, PerExample | Total]:
    """Pull dY back as if rounding were not there, v = x / s; at the ends, v ≤ −N or v ≥ P, X has no slope.

        dX = dY ∘ [−N < V < P]      ds = g Σ dY ∘ (round(V) − V inside, −N or P at the ends)

    Derivation: docs/derivations/structure/quantization.md
    """
    X, s = check_residuals("lsq_quantize_backward", residuals, LsqQuantizeResiduals)
    check_cotangent("lsq_quantize_backward", dY, X.shape, jnp.result_type(X, s))
    x, step = _against(X, s)
    v = x / step
    q, inside = _steps(v, bits, signed)
    of_step = jnp.where(inside, jnp.round(q) - v, q) * _scale(X, s, bits, signed, gradient_scale)
    Delta = dY.astype(x.dtype) * of_step
    dX = jnp.where(inside, dY, 0).astype(X.dtype)
    if s.ndim:
        return dX, Total(Delta, s.dtype)
    return dX, PerExample(jnp.sum(Delta, axis=tuple(range(1, X.ndim))), s.dtype)


lsq_quantize = Rule(lsq_quantize_forward, lsq_quantize_backward)


def _against(X: Elements, s: Step) -> tuple[Elements, Float[Array, "..."]]:
    """X and the step against it, in the dtype of sums."""
    x, step = wide(X, s)
    return x, step.reshape((1,) * (x.ndim - step.ndim) + step.shape)


def _ends(bits: int, signed: bool) -> tuple[int, int]:
    """−N and P."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _steps(v: Elements, bits: int, signed: bool) -> tuple[Elements, Array]:
    """v between the ends, and whether it was inside."""
    low, high = _ends(bits, signed)
    return jnp.clip(v, low, high), (v > low) & (v < high)


def _scale(X: Elements, s: Step, bits: int, signed: bool, gradient_scale: float | None) -> float:
    shared = math.prod(X.shape[1:]) // (X.shape[-1] if s.ndim else 1)
    return 1 / math.sqrt(max(shared, 1) * _ends(bits, signed)[1]) if gradient_scale is None else gradient_scale
