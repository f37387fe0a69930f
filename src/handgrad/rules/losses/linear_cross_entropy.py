"""The output projection and its loss as one rule: logits exist for a chunk of tokens at a time, in both passes."""

from typing import NamedTuple

from jaxtyping import Array, Float

from handgrad.checks import check_residuals
from handgrad.factors import Recomputed
from handgrad.rule import Rule
from handgrad.rules.losses._losses import Losses, check_losses_cotangent, per_example
from handgrad.rules.losses._projected import (
    Options,
    Weight,
    check_projected,
    losses_of_tokens,
    promoted,
    pulled_through,
    unrounded_logits,
    walk,
)
from handgrad.rules.losses._targets import Labels, selected
from handgrad.rules.losses.softmax_cross_entropy import backward_by, forward_by

__all__ = [
    "LinearCrossEntropyResiduals",
    "linear_cross_entropy",
    "linear_cross_entropy_at_once",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_forward",
]

Tokens = Float[Array, "batch *tokens"]


class LinearCrossEntropyResiduals(NamedTuple):
    """The arguments (references, no copies) and two numbers for each token; nothing of the logits' size.

    Attributes:
      X: what is projected.
      W: weights, of (n, n_in) where they are transposed.
      b: bias, or None.
      Y: labels.
      M: the largest of each token's logits, in float32 at least.
      rest: Σ e^(s − M) − 1, likewise: M and rest are what softmax_cross_entropy keeps of a row of logits.
    """

    X: Float[Array, "batch *tokens n_in"]
    W: Weight
    b: Float[Array, " n"] | None
    Y: Labels
    M: Tokens
    rest: Tokens


def linear_cross_entropy_forward(
    X: Float[Array, "batch *tokens n_in"],
    W: Weight,
    b: Float[Array, " n"] | None,
    Y: Labels,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    transposed: bool = False,
) -> tuple[Losses, LinearCrossEntropyResiduals]:
    """C = softmax_cross_entropy(X W + 1 bᵀ, Y), the logits of `chunk` tokens at a time.

    Logits are in float32 at least, whatever X and W are in. C has the promoted dtype of X, W and b.

    Args:
      Y: labels in 0 … n − 1, or ignore_index.
      chunk: the number of tokens whose logits are live at a time, (chunk, n).
      label_smoothing, ignore_index, z_loss, softcap: as for softmax_cross_entropy_forward.
      transposed: W is (n, n_in), as an embedding's table is, and logits are X Wᵀ + 1 bᵀ.
    Derivation: docs/derivations/losses/linear_cross_entropy.md (Wijmans et al. 2024)
    """
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap, transposed)
    check_projected("linear_cross_entropy_forward", X, W, b, Y, options)
    C, *kept = losses_of_tokens(X, W, b, Y, options)
    return per_example(C, promoted(X, W, b)), LinearCrossEntropyResiduals(X, W, b, Y, *kept)


def linear_cross_entropy_backward(
    residuals: LinearCrossEntropyResiduals,
    dC: Losses,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    transposed: bool = False,
) -> tuple[Float[Array, "batch *tokens n_in"], Recomputed, Recomputed | None, None]:
    """Pull dC back through the loss and the projection, chunk by chunk; each chunk's logits are computed again.

        dZ = dC ∘ (P − Q), as in softmax_cross_entropy      dX = dZ Wᵀ      dW = Σ Xᵀ dZ      db = Σ dZᵀ 1

    Transposed, dX = dZ W and dW = Σ dZᵀ X. dW and db are summed already; weights and folds recompute the logits.

    Args:
      chunk: as for the forward pass; may be another.
      label_smoothing, ignore_index, z_loss, softcap, transposed: the forward's.
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    where = "linear_cross_entropy_backward"
    X, W, b, Y, *kept = check_residuals(where, residuals, LinearCrossEntropyResiduals)
    check_losses_cotangent(where, dC, X, promoted(X, W, b))
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap, transposed)
    return *pulled_through((X, Y, *kept, dC), (W, b), options), None


linear_cross_entropy = Rule(linear_cross_entropy_forward, linear_cross_entropy_backward)


def linear_cross_entropy_at_once(
    X: Float[Array, "batch *tokens n_in"],
    W: Weight,
    b: Float[Array, " n"] | None,
    Y: Labels,
    dC: Losses,
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    transposed: bool = False,
) -> tuple[Losses, tuple[Float[Array, "batch *tokens n_in"], Weight, Float[Array, " n"] | None]]:
    """The losses and what dC is pulled back to, in one pass, for a cotangent that is known before the loss.

    Each chunk's logits are computed once, where the rule's two passes compute them twice: 6 n_in n operations a token
    instead of 8. A mean over the batch, weighted or not, has such a cotangent: the weights.

    Args:
      dC: cotangent of C.
      X, W, b, Y, the options: as for linear_cross_entropy_forward.
    Returns:
      C, (dX, dW, db), db None without a bias: what the two passes give, summed over the examples.
    Derivation: docs/derivations/losses/linear_cross_entropy.md (Hsu et al. 2024, "Liger kernel")
    """
    where = "linear_cross_entropy_at_once"
    options = Options(chunk, label_smoothing, ignore_index, z_loss, softcap, transposed)
    check_projected(where, X, W, b, Y, options)
    dtype = promoted(X, W, b)
    check_losses_cotangent(where, dC, X, dtype)

    def logits_cotangent(X: Array, Y: Array, dC: Array) -> tuple[Array, Array]:
        C, kept = forward_by(selected, unrounded_logits(X, W, b, transposed), Y, None, options.of_loss)
        return backward_by(selected, kept, dC, options.of_loss)[0].astype(dtype), C

    dX, dW, db, C = walk((X, Y), dC, (W, b), options, logits_cotangent)
    db = None if b is None else db.astype(b.dtype)
    return per_example(C, dtype), (dX, dW.astype(W.dtype), db)
