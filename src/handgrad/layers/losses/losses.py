"""Every loss: the rule of the same name, with its options."""

from functools import partial

import jax

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule
from handgrad.rules.losses._targets import is_ignored
from handgrad.rules.rule import Rule

__all__ = [
    "absolute_error",
    "binary_cross_entropy",
    "cosine_distance",
    "focal_loss",
    "hinge_loss",
    "huber_loss",
    "info_nce",
    "kl_divergence",
    "l2_loss",
    "poisson_loss",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]

Array = jax.Array


def squared_error() -> Loss:
    """C_b = Σ (a − y)²: the question's own C."""
    loss = loss_from_rule(rules.squared_error)
    return loss._replace(root=rules.squared_error_root, draw=rules.squared_error_draw)


def l2_loss() -> Loss:
    """C_b = ½ Σ (a − y)²: Nielsen's quadratic cost."""
    loss = loss_from_rule(rules.l2_loss)
    return loss._replace(root=rules.l2_loss_root, draw=rules.l2_loss_draw)


def absolute_error() -> Loss:
    """C_b = Σ |a − y|."""
    return loss_from_rule(rules.absolute_error)


def huber_loss(delta: float = 1.0) -> Loss:
    """C_b = Σ ½ e² where |e| ≤ delta, delta (|e| − ½ delta) elsewhere."""
    return loss_from_rule(rules.huber_loss, delta=delta)


def sigmoid_cross_entropy() -> Loss:
    """Binary cross-entropy of σ(logits)."""
    loss = loss_from_rule(rules.sigmoid_cross_entropy)
    return loss._replace(root=rules.sigmoid_cross_entropy_root, draw=rules.sigmoid_cross_entropy_draw)


def softmax_cross_entropy(
    label_smoothing: float = 0.0,
    *,
    class_weights: Array | None = None,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Loss:
    """Cross-entropy of softmax(logits) against labels or distributions."""
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
        return loss  # its Hessian is another one, which need not be positive
    target = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    return loss._replace(
        root=partial(rules.softmax_cross_entropy_root, **target),
        draw=partial(rules.softmax_cross_entropy_draw, **target),
    )


def binary_cross_entropy() -> Loss:
    """Binary cross-entropy of probabilities; after a sigmoid its composed delta is a − y.

    Finite also where a sigmoid rounds to 0 or 1, but the delta is 0 there: prefer sigmoid_cross_entropy, from logits.
    """
    return loss_from_rule(rules.binary_cross_entropy)


def focal_loss(gamma: float = 2.0, *, alpha: float | None = None) -> Loss:
    """Binary cross-entropy of σ(logits) times (the probability of the wrong answer)^gamma."""
    return loss_from_rule(rules.focal_loss, gamma=gamma, alpha=alpha)


def hinge_loss() -> Loss:
    """C_b = Σ max(0, 1 − y a), y being −1 or 1."""
    return loss_from_rule(rules.hinge_loss)


def kl_divergence(*, log_target: bool = False) -> Loss:
    """C_b = Σ q (log q − ℓ) of predicted log-probabilities ℓ."""
    return loss_from_rule(rules.kl_divergence, log_target=log_target)


def poisson_loss(*, log_input: bool = True, full: bool = False, epsilon: float = 1e-8) -> Loss:
    """C_b = Σ (e^a − y a), of counts y."""
    return loss_from_rule(rules.poisson_loss, log_input=log_input, full=full, epsilon=epsilon)


def cosine_distance(*, epsilon: float = 1e-8) -> Loss:
    """C_b = Σ (1 − cos(a, y)), along the last axis."""
    return loss_from_rule(rules.cosine_distance, epsilon=epsilon)


def info_nce(
    temperature: float = 0.07, *, normalize: bool = True, epsilon: float = 1e-8, residuals: str = "save"
) -> Loss:
    """Each query finds its own key among the batch's; the target, the keys, is a constant to this loss.

    The one loss whose examples meet: whatever asks for the gradient of a single one is refused.
    Where the keys are learned too, `info_nce_backward` has their cotangent, and `custom_vjp_rule` makes it a function.
    """
    return loss_from_rule(
        rules.info_nce,
        couples="info_nce couples the examples of a batch (a loss of each example alone does not)",
        temperature=temperature,
        normalize=normalize,
        epsilon=epsilon,
        residuals=residuals,
    )
