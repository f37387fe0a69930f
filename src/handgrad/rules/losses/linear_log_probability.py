"""The log-probability of each token's label under an output projection: what policies and preferences are losses of."""

from typing import NamedTuple

from jaxtyping import Array, Float

from handgrad.checks import check_cotangent, check_residuals
from handgrad.factors import Recomputed
from handgrad.rule import Rule
from handgrad.rules.losses._projected import (
    Options,
    Weight,
    check_projected,
    losses_of_tokens,
    promoted,
    pulled_through,
)
from handgrad.rules.losses._targets import Labels

__all__ = [
    "LinearLogProbabilityResiduals",
    "linear_log_probability",
    "linear_log_probability_backward",
    "linear_log_probability_forward",
]

Tokens = Float[Array, "batch *tokens"]


class LinearLogProbabilityResiduals(NamedTuple):
    """The arguments (references, no copies) and two numbers for each token; nothing of the logits' size.

    Attributes:
      X: what is projected.
      W: weights, of (n, n_in) where they are transposed.
      b: bias, or None.
      Y: labels.
      M: the largest of each token's logits, in float32 at least.
      rest: Σ e^(s − M) − 1, likewise: as linear_cross_entropy keeps them.
    """

    X: Float[Array, "batch *tokens n_in"]
    W: Weight
    b: Float[Array, " n"] | None
    Y: Labels
    M: Tokens
    rest: Tokens


def linear_log_probability_forward(
    X: Float[Array, "batch *tokens n_in"],
    W: Weight,
    b: Float[Array, " n"] | None,
    Y: Labels,
    *,
    chunk: int = 256,
    ignore_index: int | None = None,
    softcap: float | None = None,
    transposed: bool = False,
) -> tuple[Tokens, LinearLogProbabilityResiduals]:
    """L_t = log softmax(x_t W + bᵀ) at each token's label y_t, the logits of `chunk` tokens at a time.

    Logits are in float32 at least, whatever X and W are in. L has the promoted dtype of X, W and b. A label outside
    0 … n − 1 makes its token's L and dX NaN.

    Args:
      Y: labels in 0 … n − 1, or ignore_index.
      chunk: the number of tokens whose logits are live at a time, (chunk, n).
      ignore_index: the label of tokens with L = 0 and no cotangent, padding or a prompt; None for no such.
      softcap: κ > 0, logits are κ tanh(z / κ); None for no cap.
      transposed: W is (n, n_in), as an embedding's table is, and logits are x_t Wᵀ + bᵀ.
    Derivation: docs/derivations/losses/linear_log_probability.md
    """
    options = _options(chunk, ignore_index, softcap, transposed)
    check_projected("linear_log_probability_forward", X, W, b, Y, options)
    C, *kept = losses_of_tokens(X, W, b, Y, options)
    return (-C).astype(promoted(X, W, b)), LinearLogProbabilityResiduals(X, W, b, Y, *kept)


def linear_log_probability_backward(
    residuals: LinearLogProbabilityResiduals,
    dL: Tokens,
    *,
    chunk: int = 256,
    ignore_index: int | None = None,
    softcap: float | None = None,
    transposed: bool = False,
) -> tuple[Float[Array, "batch *tokens n_in"], Recomputed, Recomputed | None, None]:
    """Pull dL back through the log-probabilities, chunk by chunk; each chunk's logits are computed again.

        dZ = dL 1ᵀ ∘ (Q − P)      dX = dZ Wᵀ      dW = Σ Xᵀ dZ      db = Σ dZᵀ 1      Q is 1 at the labels

    Transposed, dX = dZ W and dW = Σ dZᵀ X. dW and db are summed already; weights and folds recompute the logits.

    Args:
      chunk: as for the forward pass; may be another.
      ignore_index, softcap, transposed: the forward's.
    Derivation: docs/derivations/losses/linear_log_probability.md
    """
    where = "linear_log_probability_backward"
    X, W, b, Y, *kept = check_residuals(where, residuals, LinearLogProbabilityResiduals)
    check_cotangent(where, dL, Y.shape, promoted(X, W, b), name="dL", of="L")
    return *pulled_through((X, Y, *kept, -dL), (W, b), _options(chunk, ignore_index, softcap, transposed)), None


linear_log_probability = Rule(linear_log_probability_forward, linear_log_probability_backward)


def _options(chunk: int, ignore_index: int | None, softcap: float | None, transposed: bool) -> Options:
    return Options(chunk, 0.0, ignore_index, 0.0, softcap, transposed)
