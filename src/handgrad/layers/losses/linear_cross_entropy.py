"""projection and linear_cross_entropy: a head that leaves its last product to the loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, Loss
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.losses.softmax_cross_entropy import softmax_cross_entropy
from handgrad.rules.losses._projected import unrounded_logits
from handgrad.rules.losses._targets import is_ignored

__all__ = ["Projection", "linear_cross_entropy", "projection"]


class Projection(NamedTuple):
    """Logits X W + 1 bᵀ, not yet multiplied. In its cotangent, W and b are factors."""

    X: Float[Array, "batch *tokens n_in"]
    W: Float[Array, "n_in n"]
    b: Float[Array, " n"] | None = None


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
    is never materialized. Curvature, a fold over the same two, does materialize the logits.

    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index, "z_loss": z_loss, "softcap": softcap}

    rule = rules.linear_cross_entropy.with_options(chunk=chunk, **options)

    def forward(prediction, target):
        return rule.forward(*_checked(prediction), target)

    def backward(residuals, dloss):
        return Projection(*rule.backward(residuals, dloss)[:3])

    def at_once(prediction, target, dloss):
        losses, cotangents = rules.linear_cross_entropy_at_once(
            *_checked(prediction), target, dloss, chunk=chunk, **options
        )
        return losses, Projection(*cotangents)

    loss = Loss(forward, backward, at_once=at_once, through=(_multiplied(), softmax_cross_entropy(**options)))
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
        return Projection(*rules.linear.backward(residuals, dy.astype(dtype))), ()

    return Layer(lambda key, x: (), forward, backward)


def _checked(prediction: object) -> Projection:
    if not isinstance(prediction, Projection):
        raise InputError(f"linear_cross_entropy: prediction must be a Projection, got {describe(prediction)}")
    return prediction
