"""Nielsen's four equations of backpropagation, BP1 to BP4, layer by layer and before any software.

Each has two forms. Per example, in column vectors and with w of (n_out, n_in), as chapter 2 writes it: z = w a + b. And
in full matrix form over the mini-batch, in this library's rows: Z = A W + 1 bᵀ, with W of (n_in, n_out). One row of the
matrix form is one example's column; the two weight matrices are each other's transpose.

All raise InputError where shapes don't fit; nothing is broadcast.

Derivation: docs/derivations/nielsen/equations.md (Nielsen, "Neural Networks and Deep Learning", chapter 2)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_shape
from handgrad.factors import Outer, Total

__all__ = [
    "bp1_batch",
    "bp1_example",
    "bp2_batch",
    "bp2_example",
    "bp3_batch",
    "bp3_example",
    "bp4_batch",
    "bp4_example",
]


def bp1_example(dC_da: Float[Array, "n_out 1"], sigma_prime: Float[Array, "n_out 1"]) -> Float[Array, "n_out 1"]:
    """δᴸ = ∇ₐC ∘ σ′(zᴸ): the error at the output layer."""
    _check_column("bp1_example", "dC_da", dC_da)
    check_shape("bp1_example", "sigma_prime", sigma_prime, dC_da.shape, "like dC_da")
    return dC_da * sigma_prime


def bp2_example(
    w_next: Float[Array, "n_next n"], delta_next: Float[Array, "n_next 1"], sigma_prime: Float[Array, "n 1"]
) -> Float[Array, "n 1"]:
    """δˡ = ((wˡ⁺¹)ᵀ δˡ⁺¹) ∘ σ′(zˡ): the error one layer further back."""
    _check_column("bp2_example", "delta_next", delta_next)
    check_shape("bp2_example", "w_next", w_next, (len(delta_next), len(sigma_prime)), "(n_next, n)")
    error = w_next.T @ delta_next
    check_shape("bp2_example", "sigma_prime", sigma_prime, error.shape, "like the error that arrives")
    return error * sigma_prime


def bp3_example(delta: Float[Array, "n_out 1"]) -> Float[Array, "n_out 1"]:
    """∂C/∂bˡ = δˡ."""
    _check_column("bp3_example", "delta", delta)
    return delta


def bp4_example(a_previous: Float[Array, "n_in 1"], delta: Float[Array, "n_out 1"]) -> Float[Array, "n_out n_in"]:
    """∂C/∂wˡ = δˡ (aˡ⁻¹)ᵀ: error out times activation in."""
    _check_column("bp4_example", "a_previous", a_previous)
    _check_column("bp4_example", "delta", delta)
    return delta @ a_previous.T


def bp1_batch(
    dC_dA: Float[Array, "batch n_out"], Sigma_prime: Float[Array, "batch n_out"]
) -> Float[Array, "batch n_out"]:
    """Δᴸ = ∇_A C ∘ σ′(Zᴸ): one row for each example."""
    check_array("bp1_batch", "dC_dA", dC_dA, min_ndim=2)
    check_shape("bp1_batch", "Sigma_prime", Sigma_prime, dC_dA.shape, "like dC_dA")
    return dC_dA * Sigma_prime


def bp2_batch(
    W_next: Float[Array, "n n_next"], Delta_next: Float[Array, "batch n_next"], Sigma_prime: Float[Array, "batch n"]
) -> Float[Array, "batch n"]:
    """Δˡ = (Δˡ⁺¹ (Wˡ⁺¹)ᵀ) ∘ σ′(Zˡ): one product for the whole mini-batch."""
    check_array("bp2_batch", "Delta_next", Delta_next, min_ndim=2)
    check_shape("bp2_batch", "W_next", W_next, (Sigma_prime.shape[-1], Delta_next.shape[-1]), "(n, n_next)")
    Error = jnp.matmul(Delta_next, W_next.T)
    check_shape("bp2_batch", "Sigma_prime", Sigma_prime, Error.shape, "like the error that arrives")
    return Error * Sigma_prime


def bp3_batch(Delta: Float[Array, "batch n_out"]) -> Total:
    """db = Δᵀ 1: the sum over the examples, as a factor (n_out,)."""
    check_array("bp3_batch", "Delta", Delta, min_ndim=2)
    return Total(Delta)


def bp4_batch(A_previous: Float[Array, "batch n_in"], Delta: Float[Array, "batch n_out"]) -> Outer:
    """dW = Aᵀ Δ: the sum of the per-example outer products is ONE product of two matrices, a factor (n_in, n_out)."""
    check_array("bp4_batch", "Delta", Delta, min_ndim=2)
    check_shape("bp4_batch", "A_previous", A_previous, (len(Delta), *A_previous.shape[1:]), "of Delta's batch")
    return Outer(A_previous, Delta)


def _check_column(where: str, name: str, value: Float[Array, "n 1"]) -> None:
    """`value` is a column vector (n, 1), as the chapter writes every vector."""
    check_array(where, name, value, min_ndim=2)
    check_shape(where, name, value, (len(value), 1), "(a column)")
