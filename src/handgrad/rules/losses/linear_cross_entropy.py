"""The output projection and its loss as one rule: logits exist for a chunk of tokens at a time, in both passes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import (
    InputError,
    as_row,
    check_array,
    check_cotangent,
    check_count,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors import Outer, Recomputed, Total
from handgrad.factors.base import accumulator, as_rows
from handgrad.rules._chunks import in_chunks, out_of_chunks
from handgrad.rules.linear.linear import LinearResiduals, linear_backward
from handgrad.rules.losses._label_cross_entropy import Kept, Options, cotangent_of_logits, loss_of_logits
from handgrad.rules.losses._losses import per_example
from handgrad.rules.losses._targets import is_ignored
from handgrad.rules.losses.softmax_cross_entropy import check_options
from handgrad.rules.rule import Rule

__all__ = [
    "LinearCrossEntropyResiduals",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_forward",
]

Array = jax.Array


class LinearCrossEntropyResiduals(NamedTuple):
    """The arguments (references, no copies) and three numbers for each token; nothing of the logits' size.

    Attributes:
      X: (batch, ..., n_in) what is projected.
      W: (n_in, n) weights.
      b: (n,) bias or None.
      Y: (batch, ...) labels.
      M: (batch, ...) largest of each token's logits, in float32 at least.
      total: (batch, ...) Σ e^(s − M), likewise: P = e^(S − M) / total without a second maximum and sum. Their
        log-sum-exp, M + log total, would lose total's digits to M's size.
      rest: (batch, ...) the same sum without the label's class: 1 − p_y is rest / total, and no difference.
    """

    X: Array
    W: Array
    b: Array | None
    Y: Array
    M: Array
    total: Array
    rest: Array


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

        C = m − s_y + log t      t = Σ e^(s − m), m the largest of a token's logits

    Logits are in float32 at least, whatever X and W are in. The loss has its digits at any size of the logits, and
    where the label is all but sure: there m = s_y, and t − 1 is summed without the 1.

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
    Derivation: docs/derivations/losses/linear_cross_entropy.md (Wijmans et al. 2024)
    """
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    _check("linear_cross_entropy_forward", X, W, b, Y, options)

    def one_chunk(_, rows):
        X, Y = rows
        return None, loss_of_logits(unrounded_logits(X, W, b), Y, options)

    _, of_tokens = meshes.scan(one_chunk, None, in_chunks((X, Y), Y, chunk))
    C, *kept = jax.tree.leaves(out_of_chunks(of_tokens, Y))
    return per_example(C).astype(_dtype(X, W, b)), LinearCrossEntropyResiduals(X, W, b, Y, *kept)


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

    At the label P − Q is −rest / total, minus the other classes' P added up, which p_y − 1 would round away.

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
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    X, W, b, Y, *kept = check_residuals("linear_cross_entropy_backward", residuals, LinearCrossEntropyResiduals)
    check_cotangent("linear_cross_entropy_backward", dC, X.shape[:1], _dtype(X, W, b), name="dC", of="C")
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    rows, shared = (X, Y, *kept, dC), (W, b)
    dX, dW, db = _walk(rows, shared, None, options)
    dW = Recomputed(dW, rows, shared, _dW_again, options, W.dtype, _dW_sides)
    return dX, dW, None if b is None else Recomputed(db, rows, shared, _db_again, options, b.dtype, _db_sides), None


linear_cross_entropy = Rule(linear_cross_entropy_forward, linear_cross_entropy_backward)


def _walk(rows: Any, shared: Any, weights: Array | None, options: Options) -> tuple[Array, Array, Any]:
    """dX, Σ dW and Σ db (None without a bias), both sums not yet rounded to the parameters' dtypes."""
    (X, Y, *kept, dC), (W, b) = rows, shared
    dtype, delta_dtype = kept[0].dtype, _dtype(X, W, b)
    dC = dC.astype(dtype) if weights is None else dC.astype(dtype) * weights.astype(dtype)

    def one_chunk(sums, rows):
        X, Y, *kept, dC = rows
        X, _ = _counted(X, Y, options)
        dZ = cotangent_of_logits(unrounded_logits(X, W, b), Y, Kept(*kept), dC, options)
        dX, dW, db = linear_backward(LinearResiduals(X, W, b), dZ.astype(delta_dtype))
        dW_sum, db_sum = sums
        return (dW_sum + dW.accumulate(), None if db is None else db_sum + db.accumulate()), dX

    zeros = jnp.zeros(W.shape, dtype), None if b is None else jnp.zeros(b.shape, dtype)
    tokens = in_chunks((X, Y, *kept), Y, options.chunk)
    dC_chunks = in_chunks(_of_tokens(dC, Y), Y, options.chunk, mode="constant")  # 0 for what only fills up
    (dW, db), dX = meshes.scan(one_chunk, zeros, (*tokens, dC_chunks))
    return out_of_chunks(dX, Y), dW, db


def _dW_again(rows: Any, shared: Any, weights: Array | None, options: Options) -> Array:
    return _walk(rows, shared, weights, options)[1]


def _db_again(rows: Any, shared: Any, weights: Array | None, options: Options) -> Array:
    return _walk(rows, shared, weights, options)[2]


def _dW_sides(rows: Any, shared: Any, options: Options) -> Outer:
    X, seen = _counted(rows[0], rows[1], options)
    return Outer(X, _whole_cotangent(rows, shared, options), shared[0].dtype, seen)


def _db_sides(rows: Any, shared: Any, options: Options) -> Total:
    return Total(_whole_cotangent(rows, shared, options), shared[1].dtype)


def _whole_cotangent(rows: Any, shared: Any, options: Options) -> Array:
    """dZ (batch, ..., n), of the logits' size."""
    X, Y, *kept, dC = rows
    dC = _of_tokens(dC.astype(kept[0].dtype), Y).reshape(-1)
    of_tokens = Y.reshape(-1), Kept(*(a.reshape(-1) for a in kept)), dC
    dZ = cotangent_of_logits(unrounded_logits(as_rows(X), *shared), *of_tokens, options)
    return dZ.astype(_dtype(X, *shared)).reshape(*Y.shape, -1)


def _counted(X: Array, Y: Array, options: Options) -> tuple[Array, Array | None]:
    """X with zeros for tokens to ignore, which may hold anything (0 · NaN is NaN), and which tokens these are not."""
    if options.ignore_index is None:
        return X, None
    seen = ~is_ignored(Y, options.ignore_index)
    return jnp.where(jnp.expand_dims(seen, -1), X, 0), seen


def _of_tokens(dC: Array, Y: Array) -> Array:
    """Each token's dC, that of its example."""
    return jnp.expand_dims(dC, tuple(range(1, Y.ndim))) + jnp.zeros(Y.shape, dC.dtype)


def unrounded_logits(X: Array, W: Array, b: Array | None) -> Array:
    """X W + 1 bᵀ in the dtype of sums: no logit is rounded to bfloat16 on its way to the exponential."""
    Z = meshes.matmul(X, W, accumulator(_dtype(X, W, b)))
    return Z if b is None else Z + as_row(b.astype(Z.dtype), Z.ndim)


def _dtype(X: Array, W: Array, b: Array | None) -> Any:
    return jnp.result_type(X, W) if b is None else jnp.result_type(X, W, b)


def _check(where: str, X: Any, W: Any, b: Any, Y: Any, options: Options) -> None:
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
    check_options(where, *options[1:])
