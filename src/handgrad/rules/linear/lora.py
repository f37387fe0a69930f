"""LoRA: a linear operation beside a product of two thin matrices (Hu et al., 2021)."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import (
    InputError,
    as_row,
    check_array,
    check_choice,
    check_cotangent,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors import Outer, Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule

__all__ = ["LoraLinearResiduals", "lora_linear", "lora_linear_backward", "lora_linear_forward"]

Inputs = Float[Array, "batch *rest n_in"]
Outputs = Float[Array, "batch *rest n_out"]
Weights = Float[Array, "n_in n_out"]
Bias = Float[Array, " n_out"]
Down = Float[Array, "n_in r"]
Up = Float[Array, "r n_out"]


class LoraLinearResiduals(NamedTuple):
    """The operation's arguments, references, no copies; and one thin array.

    Attributes:
      X: input, the left side of dW and dA.
      W: weights, for dX.
      A: first adapter, for dX.
      B: second adapter, for dX and dA.
      b: bias, or None: whether there is a db, and in which dtype.
      H: X A, the left side of dB; None where it is recomputed.
    """

    X: Inputs
    W: Weights
    A: Down
    B: Up
    b: Bias | None
    H: Float[Array, "batch *rest r"] | None


def lora_linear_forward(
    X: Inputs,
    W: Weights,
    A: Down,
    B: Up,
    b: Bias | None = None,
    *,
    scale: int | float,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Outputs, LoraLinearResiduals]:
    """Y = X W + s (X A) B + 1 bᵀ: X (W + s A B), without ever forming W + s A B; in the arrays' promoted dtype.

    Args:
      scale: s, in the paper α / r.
      residuals: "save" keeps X A; "recompute" forms it again in the backward pass.
    Derivation: docs/derivations/linear/lora.md (Hu et al., 2021)
    """
    where = "lora_linear_forward"
    check_array(where, "X", X, min_ndim=2)
    for name, matrix, axes in (("W", W, "(n_in, n_out)"), ("A", A, "(n_in, r)"), ("B", B, "(r, n_out)")):
        check_array(where, name, matrix)
        if matrix.ndim != 2:
            raise InputError(f"{where}: {name} must have shape {axes}, got {describe(matrix)}")
    check_shape(where, "X", X, (*X.shape[:-1], W.shape[0]), f"to meet W {W.shape}")
    check_shape(where, "A", A, (W.shape[0], A.shape[1]), f"to meet W {W.shape}")
    check_shape(where, "B", B, (A.shape[1], W.shape[1]), f"to meet A {A.shape} and W {W.shape}")
    if b is not None:
        check_array(where, "b", b)
        check_shape(where, "b", b, (W.shape[1],), f"to meet W {W.shape}")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise InputError(f"{where}: scale must be a number, got {scale!r}")
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    H = meshes.matmul(X, A)
    Y = _product(X, W) + scale * _product(H, B)
    if b is not None:
        Y = Y + as_row(b, Y.ndim)
    return Y.astype(_dtype(X, W, A, B, b)), LoraLinearResiduals(X, W, A, B, b, H if residuals == "save" else None)


def lora_linear_backward(
    residuals: LoraLinearResiduals, dY: Outputs, *, scale: int | float
) -> tuple[Inputs, Outer, Outer, Outer, Total | None]:
    """Pull dY back through Y = X W + s H B + 1 bᵀ, H = X A.

        dH = s dY Bᵀ      dX = dY Wᵀ + dH Aᵀ
        dW = Xᵀ dY        dA = Xᵀ dH        dB = s Hᵀ dY        db = dYᵀ 1

    No cotangent needs another one's product: a program that uses dA and dB alone never forms dW.

    Derivation: docs/derivations/linear/lora.md (Hu et al., 2021)
    """
    X, W, A, B, b, H = check_residuals("lora_linear_backward", residuals, LoraLinearResiduals)
    check_cotangent("lora_linear_backward", dY, (*X.shape[:-1], W.shape[1]), _dtype(X, W, A, B, b))
    if H is None:
        H = meshes.matmul(X, A)
    dH = (scale * _product(dY, B.T)).astype(dY.dtype)
    dX = (_product(dY, W.T) + _product(dH, A.T)).astype(X.dtype)
    dW, dA, dB = Outer(X, dY, W.dtype), Outer(X, dH, A.dtype), Outer(scale * H, dY, B.dtype)
    return dX, dW, dA, dB, None if b is None else Total(dY, b.dtype)


lora_linear = Rule(lora_linear_forward, lora_linear_backward)


def _product(X: Float[Array, "*rows n"], W: Float[Array, "n m"]) -> Float[Array, "*rows m"]:
    """X W, in float32 at least: two of them are added before their sum is rounded."""
    return meshes.matmul(X, W, accumulator(X, W))


def _dtype(*arrays: Array | None) -> jnp.dtype:
    return jnp.result_type(*(array for array in arrays if array is not None))
