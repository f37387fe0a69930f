"""The walk over a projection's tokens, chunk by chunk, and what its factors recompute."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_count, check_flags, check_shape, describe
from handgrad.factors import Outer, Recomputed, Total
from handgrad.factors.base import accumulator, as_rows
from handgrad.rules.linear.linear import LinearResiduals, linear_backward
from handgrad.rules.losses._chunks import in_chunks, out_of_chunks
from handgrad.rules.losses._targets import check_options, is_ignored, selected
from handgrad.rules.losses.softmax_cross_entropy import SoftmaxCrossEntropyResiduals, backward_by, forward_by

Rows = tuple[Array, ...]  # X, Y, M, rest, dC, batch first; dC of each example, or of each token
Shared = tuple[Array, Any]  # W, and b or None
Weight = Float[Array, "n_in n"] | Float[Array, "n n_in"]  # the second where it is transposed


class Options(NamedTuple):
    """The rule's options, as the factors keep them: hashable."""

    chunk: int
    label_smoothing: float
    ignore_index: int | None
    z_loss: float
    softcap: float | None
    transposed: bool

    @property
    def of_loss(self) -> tuple[float, int | None, float, float | None]:
        """Those of softmax_cross_entropy."""
        return self.label_smoothing, self.ignore_index, self.z_loss, self.softcap


def check_projected(where: str, X: Array, W: Array, b: Array | None, Y: Array, options: Options) -> None:
    """X W + 1 bᵀ has a label in Y for each of its rows, and the options are valid."""
    check_flags(where, transposed=options.transposed)
    check_array(where, "X", X, min_ndim=2)
    check_array(where, "W", W)
    if W.ndim != 2:
        shape = "(n, n_in)" if options.transposed else "(n_in, n)"
        raise InputError(f"{where}: W must have shape {shape}, got {describe(W)}")
    n_in, n = reversed(W.shape) if options.transposed else W.shape
    check_shape(where, "X", X, (*X.shape[:-1], n_in), f"to meet W {W.shape}")
    if n == 0:
        raise InputError(f"{where}: W must have at least one class, got {describe(W)}")
    if b is not None:
        check_array(where, "b", b)
        check_shape(where, "b", b, (n,), f"to meet W {W.shape}")
    check_shape(where, "the labels Y", Y, X.shape[:-1], "(one label for each row of X)")
    if not jnp.issubdtype(Y.dtype, jnp.integer):
        raise InputError(f"{where}: the labels Y must be integers, got {describe(Y)}")
    check_count(where, "chunk", options.chunk)
    check_options(where, *options.of_loss)


def losses_of_tokens(X: Array, W: Array, b: Array | None, Y: Array, options: Options) -> tuple[Array, Array, Array]:
    """softmax_cross_entropy of each token, its M and its rest, chunk by chunk: (batch, ...) each, not rounded."""

    def one_chunk(_, rows):
        X, Y = rows
        C, kept = forward_by(selected, unrounded_logits(X, W, b, options.transposed), Y, None, options.of_loss)
        return None, (C, kept.M[:, 0], kept.rest[:, 0])

    _, of_tokens = meshes.scan(one_chunk, None, in_chunks((X, Y), Y, options.chunk))
    return out_of_chunks(of_tokens, Y)


def pulled_through(rows: Rows, shared: Shared, options: Options) -> tuple[Array, Recomputed, Recomputed | None]:
    """dX, dW and db, the last two summed already; their folds over examples recompute the logits."""
    W, b = shared
    dX, sum_W, sum_b = again(rows, shared, None, options)
    dW = Recomputed(sum_W, rows, shared, dW_again, options, W.dtype, dW_sides)
    db = None if b is None else Recomputed(sum_b, rows, shared, db_again, options, b.dtype, db_sides)
    return dX, dW, db


def walk(
    tokens: Rows, dC: Array, shared: Shared, options: Options, logits_cotangent: Callable[..., tuple[Array, Any]]
) -> tuple[Array, Array, Any, Any]:
    """dX, Σ dW and Σ db (None without a bias), both sums not yet rounded to the parameters' dtypes, chunk by chunk; and
    what `logits_cotangent` gives beside dZ, token by token."""
    Y, (W, b), dtype = tokens[1], shared, accumulator(promoted(tokens[0], *shared))

    def one_chunk(sums, rows):
        X, Y, *_ = rows
        dZ, beside = logits_cotangent(*rows)
        X, _ = _counted(X, Y, options)
        dX, dW, db = product_backward(X, W, b, dZ, options.transposed)
        dW_sum, db_sum = sums
        return (dW_sum + dW.accumulate(), None if db is None else db_sum + db.accumulate()), (dX, beside)

    zeros = jnp.zeros(W.shape, dtype), None if b is None else jnp.zeros(b.shape, dtype)
    # 0 for what only fills up
    dC = in_chunks(_of_tokens(dC.astype(dtype), Y), Y, options.chunk, mode="constant")
    (dW, db), of_tokens = meshes.scan(one_chunk, zeros, (*in_chunks(tokens, Y, options.chunk), dC))
    dX, beside = out_of_chunks(of_tokens, Y)
    return dX, dW, db, beside


def product_backward(
    X: Array, W: Weight, b: Array | None, dZ: Array, transposed: bool
) -> tuple[Array, Outer, Total | None]:
    """The backward pass of Z = X W + 1 bᵀ; transposed, of Z = X Wᵀ + 1 bᵀ: dX = dZ W, dW = dZᵀ X."""
    dX, dW, db = linear_backward(LinearResiduals(X, W.T if transposed else W, b), dZ)
    return dX, Outer(dZ, X, W.dtype) if transposed else dW, db


def again(rows: Rows, shared: Shared, weights: Array | None, options: Options) -> tuple[Array, Array, Any]:
    """`walk` with logits that are computed again, dC times weights."""
    *tokens, dC = rows

    def logits_cotangent(X: Array, Y: Array, M: Array, rest: Array, dC: Array) -> tuple[Array, None]:
        return _logits_cotangent(X, Y, (M, rest), dC, shared, options), None

    dtype = tokens[2].dtype
    dC = dC.astype(dtype)
    if weights is not None:
        dC = dC * jnp.expand_dims(weights.astype(dtype), tuple(range(1, dC.ndim)))
    return walk(tuple(tokens), dC, shared, options, logits_cotangent)[:3]


def _logits_cotangent(X: Array, Y: Array, kept: Sequence[Array], dC: Array, shared: Shared, options: Options) -> Array:
    """dZ (tokens, n) of tokens, whose logits are computed again."""
    M, rest = (jnp.expand_dims(a, 1) for a in kept)
    of_loss = SoftmaxCrossEntropyResiduals(unrounded_logits(X, *shared, options.transposed), M, rest, Y, None)
    dZ, _, _ = backward_by(selected, of_loss, dC, options.of_loss)
    return dZ.astype(promoted(X, *shared))


def dW_again(rows: Rows, shared: Shared, weights: Array | None, options: Options) -> Array:
    return again(rows, shared, weights, options)[1]


def db_again(rows: Rows, shared: Shared, weights: Array | None, options: Options) -> Array:
    return again(rows, shared, weights, options)[2]


def dW_sides(rows: Rows, shared: Shared, options: Options) -> Outer:
    X, seen = _counted(rows[0], rows[1], options)
    dZ = _whole_cotangent(rows, shared, options)
    A, Delta = (dZ, X) if options.transposed else (X, dZ)
    return Outer(A, Delta, shared[0].dtype, seen)


def db_sides(rows: Rows, shared: Shared, options: Options) -> Total:
    return Total(_whole_cotangent(rows, shared, options), shared[1].dtype)


def _whole_cotangent(rows: Rows, shared: Shared, options: Options) -> Array:
    """dZ (batch, ..., n), of the logits' size."""
    X, Y, *kept, dC = rows
    labels, *kept, dC = (a.reshape(-1) for a in (Y, *kept, _of_tokens(dC.astype(kept[0].dtype), Y)))
    dZ = _logits_cotangent(as_rows(X), labels, kept, dC, shared, options)
    return dZ.reshape(*Y.shape, dZ.shape[1])


def _counted(X: Array, Y: Array, options: Options) -> tuple[Array, Array | None]:
    """X with zeros for tokens to ignore, which may hold anything (0 · NaN is NaN), and which tokens these are not."""
    if options.ignore_index is None:
        return X, None
    seen = ~is_ignored(Y, options.ignore_index)
    return jnp.where(jnp.expand_dims(seen, -1), X, 0), seen


def _of_tokens(dC: Array, Y: Array) -> Array:
    """Each token's dC: its own, or that of its example."""
    return jnp.expand_dims(dC, tuple(range(dC.ndim, Y.ndim))) + jnp.zeros(Y.shape, dC.dtype)


def unrounded_logits(X: Array, W: Weight, b: Array | None, transposed: bool = False) -> Array:
    """X W + 1 bᵀ in the dtype of sums: no logit is rounded to bfloat16 on its way to the exponential."""
    Z = meshes.matmul(X, W.T if transposed else W, accumulator(promoted(X, W, b)))
    return Z if b is None else Z + as_row(b.astype(Z.dtype), Z.ndim)


def promoted(X: Array, W: Array, b: Array | None) -> np.dtype:
    """The dtype of the losses."""
    return jnp.result_type(X, W) if b is None else jnp.result_type(X, W, b)
