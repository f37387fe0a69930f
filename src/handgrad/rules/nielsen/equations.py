"""Nielsen's four equations, BP1 to BP4: what backpropagation is, layer by layer, before any software.

Each stands here twice. Per example, in column vectors and with W of (n_out, n_in), as his chapter 2 writes it: z = w
a + b. And in full matrix form over the mini-batch, in this library's rows: Z = A W + 1 bᵀ, with W of (n_in, n_out).
One row of the matrix form is one example's column; the two weight matrices are each other's transpose.

All raise InputError where shapes don't fit.

Derivation: docs/derivations/nielsen/equations.md (Nielsen, "Neural Networks and Deep Learning", chapter 2)
"""

import jax
import jax.numpy as jnp

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

Array = jax.Array


def bp1_example(dC_da: Array, sigma_prime: Array) -> Array:
    """δᴸ = ∇ₐC ∘ σ′(zᴸ): the error at the output layer.

    Args:
      dC_da: (n_out, 1) slope of the cost at the output activation.
      sigma_prime: (n_out, 1) slope of the activation at zᴸ.
    Returns:
      δᴸ (n_out, 1).
    """
    _check_column("bp1_example", "dC_da", dC_da)
    check_shape("bp1_example", "sigma_prime", sigma_prime, dC_da.shape, "like dC_da")
    return dC_da * sigma_prime


def bp2_example(w_next: Array, delta_next: Array, sigma_prime: Array) -> Array:
    """δˡ = ((wˡ⁺¹)ᵀ δˡ⁺¹) ∘ σ′(zˡ): the error one layer further back.

    Args:
      w_next: (n_next, n) weights of the layer after.
      delta_next: (n_next, 1) error of the layer after.
      sigma_prime: (n, 1) slope of the activation at zˡ.
    Returns:
      δˡ (n, 1).
    """
    _check_column("bp2_example", "delta_next", delta_next)
    check_shape("bp2_example", "w_next", w_next, (len(delta_next), len(sigma_prime)), "(n_next, n)")
    error = w_next.T @ delta_next
    check_shape("bp2_example", "sigma_prime", sigma_prime, error.shape, "like the error that arrives")
    return error * sigma_prime


def bp3_example(delta: Array) -> Array:
    """∂C/∂bˡ = δˡ.

    Args:
      delta: (n_out, 1) error of the layer.
    Returns:
      ∂C/∂bˡ (n_out, 1).
    """
    _check_column("bp3_example", "delta", delta)
    return delta


def bp4_example(a_previous: Array, delta: Array) -> Array:
    """∂C/∂wˡ = δˡ (aˡ⁻¹)ᵀ: error out times activation in.

    Args:
      a_previous: (n_in, 1) activation that enters the layer.
      delta: (n_out, 1) error of the layer.
    Returns:
      ∂C/∂wˡ (n_out, n_in).
    """
    _check_column("bp4_example", "a_previous", a_previous)
    _check_column("bp4_example", "delta", delta)
    return delta @ a_previous.T


def bp1_batch(dC_dA: Array, Sigma_prime: Array) -> Array:
    """Δᴸ = ∇_A C ∘ σ′(Zᴸ): one row for each example.

    Args:
      dC_dA: (batch, n_out) slope of each example's cost at its output activation.
      Sigma_prime: (batch, n_out) slope of the activation at Zᴸ.
    Returns:
      Δᴸ (batch, n_out).
    """
    check_array("bp1_batch", "dC_dA", dC_dA, min_ndim=2)
    check_shape("bp1_batch", "Sigma_prime", Sigma_prime, dC_dA.shape, "like dC_dA")
    return dC_dA * Sigma_prime


def bp2_batch(W_next: Array, Delta_next: Array, Sigma_prime: Array) -> Array:
    """Δˡ = (Δˡ⁺¹ (Wˡ⁺¹)ᵀ) ∘ σ′(Zˡ): one product for the whole mini-batch.

    Args:
      W_next: (n, n_next) weights of the layer after.
      Delta_next: (batch, n_next) errors of the layer after.
      Sigma_prime: (batch, n) slope of the activation at Zˡ.
    Returns:
      Δˡ (batch, n).
    """
    check_array("bp2_batch", "Delta_next", Delta_next, min_ndim=2)
    check_shape("bp2_batch", "W_next", W_next, (Sigma_prime.shape[-1], Delta_next.shape[-1]), "(n, n_next)")
    Error = jnp.matmul(Delta_next, W_next.T)
    check_shape("bp2_batch", "Sigma_prime", Sigma_prime, Error.shape, "like the error that arrives")
    return Error * Sigma_prime


def bp3_batch(Delta: Array) -> Total:
    """db = Δᵀ 1: the sum over the examples.

    Args:
      Delta: (batch, n_out) errors of the layer.
    Returns:
      db: Total, (n_out,).
    """
    check_array("bp3_batch", "Delta", Delta, min_ndim=2)
    return Total(Delta)


def bp4_batch(A_previous: Array, Delta: Array) -> Outer:
    """dW = Aᵀ Δ: the sum of the per-example outer products is ONE product of two matrices.

    Args:
      A_previous: (batch, n_in) activations that enter the layer.
      Delta: (batch, n_out) errors of the layer.
    Returns:
      dW: Outer, (n_in, n_out).
    """
    check_array("bp4_batch", "Delta", Delta, min_ndim=2)
    check_shape("bp4_batch", "A_previous", A_previous, (len(Delta), *A_previous.shape[1:]), "of Delta's batch")
    return Outer(A_previous, Delta)


def _check_column(where: str, name: str, value: Array) -> None:
    """`value` is a column vector (n, 1), as Nielsen's chapter writes every vector."""
    check_array(where, name, value, min_ndim=2)
    check_shape(where, name, value, (len(value), 1), "(a column)")
