"""projection and linear_cross_entropy: a head that leaves its last product to the loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, Loss
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.losses.losses import softmax_cross_entropy
from handgrad.rules.losses._targets import is_ignored
from handgrad.rules.losses.linear_cross_entropy import unrounded_logits

__all__ = [
    "Projection",
    "linear_cross_entropy",
    "projection",
]

Array = jax.Array


class Projection(NamedTuple):
    """Logits X W + 1 bᵀ, not yet multiplied. Its cotangent has the same form.

    Attributes:
      X: (batch, ..., n_in).
      W: (n_in, n).
      b: (n,), or None.
    """

    X: Any
    W: Any
    b: Any = None


def projection(
    n_out: int,
    *,
    bias: bool = True,
    n_in: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """`linear`, its product left to the loss: y is Projection(X, W, b), for `linear_cross_entropy`.

    Its parameters are linear's own, LinearParams(W, b): with `linear(n_out)` in its place the same params give logits.

    Args:
      n_out, bias, n_in, init_W, init_b: as for linear.
    Raises:
      InputError: as linear; at trace time, params of another layer, a dy that is no Projection.
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    multiplied = linear(n_out, bias=bias, n_in=n_in, init_W=init_W, init_b=init_b)

    def forward(params, x, key=None):
        jax.eval_shape(multiplied.forward, params, x)  # for its checks; nothing is computed
        return Projection(x, params.W, params.b), ()

    def backward(residuals, dy):
        if not isinstance(dy, Projection):
            raise InputError(f"projection: dy must be a Projection, got {describe(dy)}")
        return dy.X, LinearParams(dy.W, dy.b)

    return Layer(multiplied.init, forward, backward)


def linear_cross_entropy(
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Loss:
    """softmax_cross_entropy of a `projection`'s logits against labels, `chunk` tokens' logits at a time.

    `chain(..., projection(n))` under this loss is `chain(..., linear(n))` under softmax_cross_entropy, and (tokens, n)
    never stands in memory. Curvature is that of the two as well, of logits: it writes them out whole.

    Args:
      chunk, label_smoothing, ignore_index, z_loss, softcap: as for linear_cross_entropy_forward.
    Raises:
      InputError: at trace time, a prediction that is no Projection, and as linear_cross_entropy_forward.
    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    options = {
        "label_smoothing": label_smoothing,
        "ignore_index": ignore_index,
        "z_loss": z_loss,
        "softcap": softcap,
    }

    def forward(prediction, target):
        return rules.linear_cross_entropy_forward(*_checked(prediction), target, chunk=chunk, **options)

    def backward(residuals, dloss):
        *of_prediction, _ = rules.linear_cross_entropy_backward(residuals, dloss, chunk=chunk, **options)
        return Projection(*of_prediction)

    loss = Loss(forward, backward, through=(_multiplied(), softmax_cross_entropy(**options)))
    if ignore_index is not None:
        loss = loss._replace(counts=lambda residuals: ~is_ignored(residuals.Y, ignore_index))
    return loss


def _multiplied() -> Layer:
    """A Projection's logits, unrounded: what curvature puts between a `projection` and its loss."""

    def forward(params, prediction, key=None):
        X, W, b = _checked(prediction)
        return unrounded_logits(X, W, b), rules.LinearResiduals(X, W, b)

    def backward(residuals, dy):
        dtype = jnp.result_type(*jax.tree.leaves(residuals))
        return Projection(*rules.linear_backward(residuals, dy.astype(dtype))), ()

    return Layer(lambda key, x: (), forward, backward)


def _checked(prediction: Any) -> Projection:
    if not isinstance(prediction, Projection):
        raise InputError(f"linear_cross_entropy: prediction must be a Projection, got {describe(prediction)}")
    return prediction
