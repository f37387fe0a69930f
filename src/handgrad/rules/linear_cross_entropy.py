"""The output projection and its loss as one rule: logits exist for a chunk of tokens at a time, in both passes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.factors import Recomputed
from handgrad.factors.base import accumulator, as_rows
from handgrad.rules._losses import per_example
from handgrad.rules.linear import LinearResiduals, linear_backward
from handgrad.rules.softmax_cross_entropy import (
    SoftmaxCrossEntropyResiduals,
    capped,
    check_options,
    is_ignored,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
    without_ignored,
)
from handgrad.shapes import (
    InputError,
    as_row,
    check_array,
    check_cotangent,
    check_count,
    check_residuals,
    check_shape,
    describe,
)

__all__ = [
    "LinearCrossEntropyResiduals",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_forward",
]

Array = jax.Array


class LinearCrossEntropyResiduals(NamedTuple):
    """The arguments (references, no copies) and one number for each token; nothing of the logits' size.

    Attributes:
      X: (batch, ..., n_in) what is projected.
      W: (n_in, n) weights.
      b: (n,) bias or None.
      Y: (batch, ...) labels.
      lse: (batch, ...) log Σ eˢ of each token's logits, in float32 at least: P = e^(S − lse) without a second sum.
    """

    X: Array
    W: Array
    b: Array | None
    Y: Array
    lse: Array


class _Options(NamedTuple):
    """The rule's options, as the factors keep them: hashable."""

    chunk: int
    label_smoothing: float
    ignore_index: int | None
    z_loss: float
    softcap: float | None

    @property
    def of_loss(self) -> dict[str, Any]:
        """Those of softmax_cross_entropy."""
        return {name: value for name, value in self._asdict().items() if name != "chunk"}


def linear_cross_entropy_forward(
    X: Array,
    W: Array,
    b: Array | None,
    Y: Array,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Array, LinearCrossEntropyResiduals]:
    """C = softmax_cross_entropy(X W + 1 bᵀ, Y), the logits of `chunk` tokens at a time.

    Logits are in float32 at least, whatever X and W are in.

    Args:
      X: (batch, ..., n_in) floating point; the axes between the first and the last are tokens.
      W: (n_in, n).
      b: (n,), or None for no bias.
      Y: (batch, ...) labels, integers in 0 … n − 1, or ignore_index.
      chunk: how many tokens' logits stand in memory, (chunk, n).
      label_smoothing, ignore_index, z_loss, softcap: as for softmax_cross_entropy_forward.
    Returns:
      C (batch,) in the promoted dtype of X, W and b, the sum over each example's tokens; residuals.
    Raises:
      InputError: a wrong rank, width or dtype; Y is not of labels; an option outside its range.
    Derivation: docs/derivations/linear_cross_entropy.md (Wijmans et al. 2024)
    """
    options = _Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    _check("linear_cross_entropy_forward", X, W, b, Y, options)

    def one_chunk(_, rows):
        X, Y = rows
        C, kept = softmax_cross_entropy_forward(_logits(X, W, b), Y, **options.of_loss)
        return None, (C, kept.lse)

    _, of_tokens = jax.lax.scan(one_chunk, None, _in_chunks((as_rows(X), Y.reshape(-1)), chunk))
    C, lse = (a.reshape(-1)[: Y.size].reshape(Y.shape) for a in of_tokens)
    return per_example(C).astype(_dtype(X, W, b)), LinearCrossEntropyResiduals(X, W, b, Y, lse)


def linear_cross_entropy_backward(
    residuals: LinearCrossEntropyResiduals,
    dC: Array,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Array, Recomputed, Recomputed | None, None]:
    """Pull dC back through the loss and the projection, chunk by chunk; each chunk's logits are computed again.

        dZ = dC ∘ (P − Q), as in softmax_cross_entropy      dX = dZ Wᵀ      dW = Σ Xᵀ dZ      db = Σ dZᵀ 1

    Args:
      residuals: LinearCrossEntropyResiduals of linear_cross_entropy_forward.
      dC: (batch,) cotangent of C, any numbers.
      chunk: how many tokens' logits stand in memory; the forward's or another.
      label_smoothing, ignore_index, z_loss, softcap: the forward's.
    Returns:
      dX like X; dW: Recomputed, (n_in, n), and db: Recomputed, (n,), or None where there was no bias: both are summed
      already, weights and folds compute the logits again; None for Y.
    Raises:
      InputError: residuals of another rule; dC not of C's shape and dtype.
    Derivation: docs/derivations/linear_cross_entropy.md
    """
    X, W, b, Y, lse = check_residuals("linear_cross_entropy_backward", residuals, LinearCrossEntropyResiduals)
    check_cotangent("linear_cross_entropy_backward", dC, X.shape[:1], _dtype(X, W, b), name="dC", of="C")
    options = _Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    rows, shared = (X, Y, lse, dC), (W, b)
    dX, dW, db = _walk(rows, shared, None, options)
    dW = Recomputed(dW, rows, shared, _dW_again, options, W.dtype)
    return dX, dW, None if b is None else Recomputed(db, rows, shared, _db_again, options, b.dtype), None


def _walk(rows: Any, shared: Any, weights: Array | None, options: _Options) -> tuple[Array, Array, Any]:
    """dX, Σ dW and Σ db (None without a bias), both sums not yet rounded to the parameters' dtypes."""
    (X, Y, lse, dC), (W, b) = rows, shared
    dtype, delta_dtype = lse.dtype, _dtype(X, W, b)
    dC = dC.astype(dtype) if weights is None else dC.astype(dtype) * weights.astype(dtype)
    dC_of_tokens = jnp.broadcast_to(jnp.expand_dims(dC, tuple(range(1, Y.ndim))), Y.shape)

    def one_chunk(sums, rows):
        X, Y, lse, dC = rows
        if options.ignore_index is not None:  # a token that doesn't count may hold anything, and 0 · NaN is NaN
            X = jnp.where(jnp.expand_dims(is_ignored(Y, options.ignore_index), 1), 0, X)
        S = capped(_logits(X, W, b), options.softcap)
        L, lse = without_ignored(S - jnp.expand_dims(lse, 1), lse, Y, options.ignore_index)
        of_loss = SoftmaxCrossEntropyResiduals(L, lse, Y, None)
        dZ, _, _ = softmax_cross_entropy_backward(of_loss, dC, **options.of_loss)
        dX, dW, db = linear_backward(LinearResiduals(X, W, b), dZ.astype(delta_dtype))
        dW_sum, db_sum = sums
        return (dW_sum + dW.accumulate(), None if db is None else db_sum + db.accumulate()), dX

    zeros = jnp.zeros(W.shape, dtype), None if b is None else jnp.zeros(b.shape, dtype)
    tokens = _in_chunks((as_rows(X), Y.reshape(-1), lse.reshape(-1)), options.chunk)
    dC_chunks = _in_chunks(dC_of_tokens.reshape(-1), options.chunk, mode="constant")  # 0 for what only fills up
    (dW, db), dX = jax.lax.scan(one_chunk, zeros, (*tokens, dC_chunks))
    return as_rows(dX)[: Y.size].reshape(X.shape), dW, db


def _dW_again(rows: Any, shared: Any, weights: Array | None, options: _Options) -> Array:
    return _walk(rows, shared, weights, options)[1]


def _db_again(rows: Any, shared: Any, weights: Array | None, options: _Options) -> Array:
    return _walk(rows, shared, weights, options)[2]


def _logits(X: Array, W: Array, b: Array | None) -> Array:
    """(chunk, n), in the dtype of sums: no logit is rounded to bfloat16 on its way to the exponential."""
    Z = jnp.matmul(X, W, preferred_element_type=accumulator(_dtype(X, W, b)))
    return Z if b is None else Z + as_row(b.astype(Z.dtype), 2)


def _in_chunks(arrays: Any, chunk: int, mode: str = "edge") -> Any:
    """(tokens, ...) as (chunks, chunk, ...), the last chunk filled up with the last token again, or with zeros."""

    def split(a: Array) -> Array:
        size = max(1, min(chunk, a.shape[0]))
        chunks = -(-a.shape[0] // size)
        a = jnp.pad(a, [(0, chunks * size - a.shape[0]), *[(0, 0)] * (a.ndim - 1)], mode)
        return a.reshape(chunks, size, *a.shape[1:])

    return jax.tree.map(split, arrays)


def _dtype(X: Array, W: Array, b: Array | None) -> Any:
    return jnp.result_type(X, W) if b is None else jnp.result_type(X, W, b)


def _check(where: str, X: Any, W: Any, b: Any, Y: Any, options: _Options) -> None:
    check_array(where, "X", X, min_ndim=2)
    check_array(where, "W", W)
    if W.ndim != 2:
        raise InputError(f"{where}: W must have shape (n_in, n), got {describe(W)}")
    check_shape(where, "X", X, (*X.shape[:-1], W.shape[0]), f"to meet W {W.shape}")
    if b is not None:
        check_array(where, "b", b)
        check_shape(where, "b", b, W.shape[1:], f"to meet W {W.shape}")
    check_shape(where, "the labels Y", Y, X.shape[:-1], "(one label for each row of X)")
    if not jnp.issubdtype(Y.dtype, jnp.integer):
        raise InputError(f"{where}: the labels Y must be integers, got {describe(Y)}")
    check_count(where, "chunk", options.chunk)
    check_options(where, **options.of_loss)
