"""softmax_cross_entropy: the rule of the same name, with its options."""

from functools import partial

from jaxtyping import Array, Float

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule
from handgrad.layers.losses._padding import of_sequences
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
    """Cross-entropy of softmax(logits) against labels or distributions, in nats.

    The loss of an example is the SUM over its tokens, log n for each of T tokens at first: T log n. A mean over tokens
    is weights of 1 / (batch · T) in a step, or optax.scale(1 / T) as the optimizer's first transformation in `fit`;
    divide the loss that is printed by T. Sequences of logits have a loss in each example's own steps alone; their
    target is labels (batch, time), whatever is behind an example's end.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> losses, _ = hg.softmax_cross_entropy().forward(jnp.zeros((2, 4)), jnp.array([3, 0]))
    >>> [round(float(loss), 4) for loss in losses]  # log 4
    [1.3863, 1.3863]

    Args:
      label_smoothing: ε in [0, 1): the target is (1 − ε) q + ε / n.
      class_weights: each class's weight; None stands for ones. Nothing is divided by their sum.
      ignore_index: the label of tokens that cost 0, such as padding; None for no such.
      z_loss: the weight of (log Σ eᶻ)², which keeps logits from drifting away together.
      softcap: κ caps the logits as κ tanh(z / κ); None for no cap.
    Derivation: docs/derivations/losses/softmax_cross_entropy.md
    """

    def make(ignore_index: int | None) -> Loss:
        return _of_array(label_smoothing, class_weights, ignore_index, z_loss, softcap)

    return of_sequences("softmax_cross_entropy", make, ignore_index)


def _of_array(
    label_smoothing: float,
    class_weights: Float[Array, " n"] | None,
    ignore_index: int | None,
    z_loss: float,
    softcap: float | None,
) -> Loss:
    """The loss of logits in an array."""
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
