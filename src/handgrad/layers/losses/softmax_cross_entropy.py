"""softmax_cross_entropy: the rule of the same name, with its options."""

from functools import partial

from jaxtyping import Array, Float

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule
from handgrad.rule import Rule
from handgrad.rules.losses._targets import is_ignored

__all__ = ["softmax_cross_entropy"]


def softmax_cross_entropy(
    label_smoothing: float = 0.0,
    *,
    class_weights: Float[Array, " n"] | None = None,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Loss:
    """Cross-entropy of softmax(logits) against labels or distributions.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> losses, _ = hg.softmax_cross_entropy().forward(jnp.zeros((2, 4)), jnp.array([3, 0]))
    >>> [round(float(loss), 4) for loss in losses]  # log 4
    [1.3863, 1.3863]
    """
    forward, backward = rules.softmax_cross_entropy
    loss = loss_from_rule(
        Rule(partial(forward, class_weights=class_weights), backward),
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        z_loss=z_loss,
        softcap=softcap,
    )
    if ignore_index is not None:
        loss = loss._replace(counts=lambda residuals: ~is_ignored(residuals.Y, ignore_index))
    if z_loss or softcap is not None:
        return loss  # whose Hessian is another one, and need not be positive
    return loss._replace(
        root=partial(rules.softmax_cross_entropy_root, label_smoothing=label_smoothing, ignore_index=ignore_index),
        draw=partial(rules.softmax_cross_entropy_draw, label_smoothing=label_smoothing, ignore_index=ignore_index),
    )
