"""The output projection and its loss as one rule: logits exist for a chunk of tokens at a time, in both passes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_count, check_residuals, check_shape, describe
from handgrad.factors import Outer, Recomputed, Total
from handgrad.factors.base import accumulator, as_rows
from handgrad.rule import Rule
from handgrad.rules.linear.linear import LinearResiduals, linear_backward
from handgrad.rules.losses._chunks import in_chunks, out_of_chunks
from handgrad.rules.losses._losses import Losses, check_losses_cotangent, per_example
from handgrad.rules.losses._targets import Labels, is_ignored
from handgrad.rules.losses.softmax_cross_entropy import (
    SoftmaxCrossEntropyResiduals,
    check_options,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)

__all__ = [
    "LinearCrossEntropyResiduals",
    "linear_cross_entropy",
    "linear_cross_entropy_at_once",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_forward",
]

Tokens = Float[Array, "batch *tokens"]
Rows = tuple[Array, ...]  # X, Y, M, rest, dC, batch first
Shared = tuple[Array, Any]  # W, and b or None


class LinearCrossEntropyResiduals(NamedTuple):
    """The arguments (references, no copies) and two numbers for each token; nothing of the logits' size.

    Attributes:
      X: what is projected.
      W: weights.
      b: bias, or None.
      Y: labels.
      M: the largest of each token's logits, in float32 at least.
      rest: Σ e^(s − M) − 1, likewise: M and rest are what softmax_cross_entropy keeps of a row of logits.
    """

    X: Float[Array, "batch *tokens n_in"]
    W: Float[Array, "n_in n"]
    b: Float[Array, " n"] | None
    Y: Labels
    M: Tokens
    rest: Tokens


class Options(NamedTuple):
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
    X: Float[Array, "batch *tokens n_in"],
    W: Float[Array, "n_in n"],
    b: Float[Array, " n"] | None,
    Y: Labels,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Losses, LinearCrossEntropyResiduals]:
    """C = softmax_cross_entropy(X W + 1 bᵀ, Y), the logits of `chunk` tokens at a time.

    Logits are in float32 at least, whatever X and W are in. C has the promoted dtype of X, W and b.

    Args:
      Y: labels in 0 … n − 1, or ignore_index.
      chunk: the number of tokens whose logits are live at a time, (chunk, n).
      label_smoothing, ignore_index, z_loss, softcap: as for softmax_cross_entropy_forward.
    Derivation: docs/derivations/losses/linear_cross_entropy.md (Wijmans et al. 2024)
    """
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    _check("linear_cross_entropy_forward", X, W, b, Y, options)

    def one_chunk(_, rows):
        X, Y = rows
        C, kept = softmax_cross_entropy_forward(unrounded_logits(X, W, b), Y, **options.of_loss)
        return None, (C, kept.M[:, 0], kept.rest[:, 0])

    _, of_tokens = meshes.scan(one_chunk, None, in_chunks((X, Y), Y, chunk))
    C, *kept = out_of_chunks(of_tokens, Y)
    return per_example(C, _dtype(X, W, b)), LinearCrossEntropyResiduals(X, W, b, Y, *kept)


def linear_cross_entropy_backward(
    residuals: LinearCrossEntropyResiduals,
    dC: Losses,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Float[Array, "batch *tokens n_in"], Recomputed, Recomputed | None, None]:
    """Pull dC back through the loss and the projection, chunk by chunk; each chunk's logits are computed again.

        dZ = dC ∘ (P − Q), as in softmax_cross_entropy      dX = dZ Wᵀ      dW = Σ Xᵀ dZ      db = Σ dZᵀ 1

    dW and db are summed already; weights and folds recompute the logits.

    Args:
      chunk: as for the forward pass; may be another.
      label_smoothing, ignore_index, z_loss, softcap: the forward's.
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    where = "linear_cross_entropy_backward"
    X, W, b, Y, *kept = check_residuals(where, residuals, LinearCrossEntropyResiduals)
    check_losses_cotangent(where, dC, X, _dtype(X, W, b))
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    rows, shared = (X, Y, *kept, dC), (W, b)
    dX, sum_W, sum_b = _again(rows, shared, None, options)
    dW = Recomputed(sum_W, rows, shared, _dW_again, options, W.dtype, _dW_sides)
    db = None if b is None else Recomputed(sum_b, rows, shared, _db_again, options, b.dtype, _db_sides)
    return dX, dW, db, None


linear_cross_entropy = Rule(linear_cross_entropy_forward, linear_cross_entropy_backward)


def linear_cross_entropy_at_once(
    X: Float[Array, "batch *tokens n_in"],
    W: Float[Array, "n_in n"],
    b: Float[Array, " n"] | None,
    Y: Labels,
    dC: Losses,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Losses, tuple[Float[Array, "batch *tokens n_in"], Float[Array, "n_in n"], Float[Array, " n"] | None]]:
    """The losses and what dC is pulled back to, in one pass, for a cotangent that is known before the loss.

    Each chunk's logits are computed once, where the rule's two passes compute them twice: 6 n_in n operations a token
    instead of 8. A mean over the batch, weighted or not, has such a cotangent: the weights.

    Args:
      dC: cotangent of C.
      others: as for linear_cross_entropy_forward.
    Returns:
      C, (dX, dW, db), db None without a bias: what the two passes give, summed over the examples.
    Derivation: docs/derivations/losses/linear_cross_entropy.md (Hsu et al. 2024, "Liger kernel")
    """
    where = "linear_cross_entropy_at_once"
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap)
    _check(where, X, W, b, Y, options)
    dtype = _dtype(X, W, b)
    check_losses_cotangent(where, dC, X, dtype)

    def logits_cotangent(X: Array, Y: Array, dC: Array) -> tuple[Array, Array]:
        C, kept = softmax_cross_entropy_forward(unrounded_logits(X, W, b), Y, **options.of_loss)
        return softmax_cross_entropy_backward(kept, dC, **options.of_loss)[0].astype(dtype), C

    dX, dW, db, C = _walk((X, Y), dC, (W, b), options, logits_cotangent)
    db = None if b is None else db.astype(b.dtype)
    return per_example(C, dtype), (dX, dW.astype(W.dtype), db)


def _walk(
    tokens: Rows, dC: Array, shared: Shared, options: Options, logits_cotangent: Callable[..., tuple[Array, Any]]
) -> tuple[Array, Array, Any, Any]:
    """dX, Σ dW and Σ db (None without a bias), both sums not yet rounded to the parameters' dtypes, chunk by chunk; and
    what `logits_cotangent` gives beside dZ, token by token."""
    Y, (W, b), dtype = tokens[1], shared, accumulator(_dtype(tokens[0], *shared))

    def one_chunk(sums, rows):
        X, Y, *_ = rows
        dZ, beside = logits_cotangent(*rows)
        X, _ = _counted(X, Y, options)
        dX, dW, db = linear_backward(LinearResiduals(X, W, b), dZ)
        dW_sum, db_sum = sums
        return (dW_sum + dW.accumulate(), None if db is None else db_sum + db.accumulate()), (dX, beside)

    zeros = jnp.zeros(W.shape, dtype), None if b is None else jnp.zeros(b.shape, dtype)
    # 0 for what only fills up
    dC = in_chunks(_of_tokens(dC.astype(dtype), Y), Y, options.chunk, mode="constant")
    (dW, db), of_tokens = meshes.scan(one_chunk, zeros, (*in_chunks(tokens, Y, options.chunk), dC))
    dX, beside = out_of_chunks(of_tokens, Y)
    return dX, dW, db, beside


def _again(rows: Rows, shared: Shared, weights: Array | None, options: Options) -> tuple[Array, Array, Any]:
    """`_walk` with logits that are computed again, dC times weights."""
    *tokens, dC = rows

    def logits_cotangent(X: Array, Y: Array, M: Array, rest: Array, dC: Array) -> tuple[Array, None]:
        return _logits_cotangent(X, Y, (M, rest), dC, shared, options), None

    dtype = tokens[2].dtype
    dC = dC.astype(dtype) if weights is None else dC.astype(dtype) * weights.astype(dtype)
    return _walk(tuple(tokens), dC, shared, options, logits_cotangent)[:3]


def _logits_cotangent(X: Array, Y: Array, kept: Sequence[Array], dC: Array, shared: Shared, options: Options) -> Array:
    """dZ (tokens, n) of tokens, whose logits are computed again."""
    M, rest = (jnp.expand_dims(a, 1) for a in kept)
    of_loss = SoftmaxCrossEntropyResiduals(unrounded_logits(X, *shared), M, rest, Y, None)
    dZ, _, _ = softmax_cross_entropy_backward(of_loss, dC, **options.of_loss)
    return dZ.astype(_dtype(X, *shared))


def _dW_again(rows: Rows, shared: Shared, weights: Array | None, options: Options) -> Array:
    return _again(rows, shared, weights, options)[1]


def _db_again(rows: Rows, shared: Shared, weights: Array | None, options: Options) -> Array:
    return _again(rows, shared, weights, options)[2]


def _dW_sides(rows: Rows, shared: Shared, options: Options) -> Outer:
    X, seen = _counted(rows[0], rows[1], options)
    return Outer(X, _whole_cotangent(rows, shared, options), shared[0].dtype, seen)


def _db_sides(rows: Rows, shared: Shared, options: Options) -> Total:
    return Total(_whole_cotangent(rows, shared, options), shared[1].dtype)


def _whole_cotangent(rows: Rows, shared: Shared, options: Options) -> Array:
    """dZ (batch, ..., n), of the logits' size."""
    X, Y, *kept, dC = rows
    labels, *kept, dC = (a.reshape(-1) for a in (Y, *kept, _of_tokens(dC.astype(kept[0].dtype), Y)))
    return _logits_cotangent(as_rows(X), labels, kept, dC, shared, options).reshape(*Y.shape, -1)


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


def _dtype(X: Array, W: Array, b: Array | None) -> np.dtype:
    return jnp.result_type(X, W) if b is None else jnp.result_type(X, W, b)


def _check(where: str, X: Array, W: Array, b: Array | None, Y: Array, options: Options) -> None:
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
