"""Spectral norm: a weight over its largest singular value, as power iteration estimates it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import check_array, check_cotangent, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide

__all__ = [
    "SpectralNormResiduals",
    "power_iteration",
    "spectral_norm",
    "spectral_norm_backward",
    "spectral_norm_forward",
]

Weight = Float[Array, "*fan_in n_out"]
Left = Float[Array, " fan_in"]
Right = Float[Array, " n_out"]


class SpectralNormResiduals(NamedTuple):
    """V, a and b, by reference: σ is one number, and recomputed."""

    V: Weight
    a: Left
    b: Right


def spectral_norm_forward(V: Weight, a: Left, b: Right) -> tuple[Weight, SpectralNormResiduals]:
    """W = V / σ, σ = aᵀ V b: with a and b the singular vectors of V's largest singular value, W's is 1.

    Args:
      V: (n_in, n_out) weights, or a kernel (*size, n_in, n_out), which counts as the matrix of all axes but the last.
      a, b: vectors of norm 1, as `power_iteration` finds them. They are arguments like any other.
    Derivation: docs/derivations/normalization/spectral_norm.md (Miyato et al. 2018)
    """
    where = "spectral_norm_forward"
    check_array(where, "V", V, min_ndim=2)
    for name, vector, length in (("a", a, math.prod(V.shape[:-1])), ("b", b, V.shape[-1])):
        check_array(where, name, vector)
        check_shape(where, name, vector, (length,), f"to meet V {tuple(V.shape)}")
    M, aw, bw = wide(_matrix(V), a, b)
    W = M / jnp.sum(aw * _times(M, bw))
    return W.reshape(V.shape).astype(jnp.result_type(V, a, b)), SpectralNormResiduals(V, a, b)


def spectral_norm_backward(residuals: SpectralNormResiduals, dW: Weight) -> tuple[Weight, Left, Right]:
    """Pull dW back through W = V / σ.

        dσ = −⟨dW, W⟩ / σ      dV = dW / σ + dσ a bᵀ      da = dσ V b      db = dσ Vᵀ a

    The layer holds a and b constant, as the field does, and drops the last two.

    Derivation: docs/derivations/normalization/spectral_norm.md
    """
    V, a, b = check_residuals("spectral_norm_backward", residuals, SpectralNormResiduals)
    check_cotangent("spectral_norm_backward", dW, V.shape, jnp.result_type(V, a, b), "dW", "W")
    M, aw, bw = wide(_matrix(V), a, b)
    dV, sigma, dlog = pull_back_weight(V, a, b, dW)
    da, db = dlog * (_times(M, bw) / sigma), dlog * (_times(M.T, aw) / sigma)
    return dV.astype(V.dtype), da.astype(a.dtype), db.astype(b.dtype)


spectral_norm = Rule(spectral_norm_forward, spectral_norm_backward)


def pull_back_weight(V: Weight, a: Left, b: Right, dW: Weight) -> tuple[Weight, Float[Array, ""], Float[Array, ""]]:
    """dV, σ and the cotangent of log σ, dσ σ, in float32 at least."""
    M, aw, bw, dM = wide(_matrix(V), a, b, _matrix(dW))
    sigma = jnp.sum(aw * _times(M, bw))
    dlog = -jnp.sum(dM * (M / sigma))
    dV = dM / sigma + dlog / sigma * (jnp.expand_dims(aw, 1) * jnp.expand_dims(bw, 0))
    return dV.reshape(V.shape), sigma, dlog


def power_iteration(V: Weight, a: Left, iterations: int) -> tuple[Left, Right]:
    """a and b after some steps b ← Vᵀa / ‖Vᵀa‖, a ← V b / ‖V b‖, constant for autodiff.

    Whatever a is, unless at right angles to it, they turn to the singular vectors of the largest singular value.
    """
    M, a = (jax.lax.stop_gradient(of) for of in wide(_matrix(V), a))

    def step(_: Array | int, vectors: tuple[Left, Right]) -> tuple[Left, Right]:
        b = _unit(_times(M.T, vectors[0]))
        return _unit(_times(M, b)), b

    a, b = step(0, (a, jnp.zeros(V.shape[-1], M.dtype)))
    if iterations > 1:
        a, b = meshes.fori_loop(iterations - 1, step, (a, b), M)
    return a.astype(V.dtype), b.astype(V.dtype)


def _matrix(V: Weight) -> Float[Array, "fan_in n_out"]:
    return V.reshape(math.prod(V.shape[:-1]), V.shape[-1])


def _times(M: Float[Array, "m n"], x: Float[Array, " n"]) -> Float[Array, " m"]:
    """M x, as a sum: the vector is read with the matrix, which is read once."""
    return jnp.sum(M * jnp.expand_dims(x, 0), axis=1)


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """x over its norm, whose squares neither over- nor underflow; 0 stays 0."""
    largest = jnp.max(jnp.abs(x), initial=0)
    x = x / jnp.where(largest > 0, largest, 1)
    return x / jnp.sqrt(jnp.where(largest > 0, jnp.sum(x * x), 1))
