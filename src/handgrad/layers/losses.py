"""Every loss: the rule of the same name, with its options."""

from handgrad import rules
from handgrad.layers.layer import Loss, loss_from_rule

__all__ = [
    "absolute_error",
    "binary_cross_entropy",
    "huber_loss",
    "l2_loss",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]


def squared_error() -> Loss:
    """C_b = Σ (a − y)²: the question's own C."""
    return loss_from_rule(rules.squared_error_forward, rules.squared_error_backward)


def l2_loss() -> Loss:
    """C_b = ½ Σ (a − y)²: Nielsen's quadratic cost."""
    return loss_from_rule(rules.l2_loss_forward, rules.l2_loss_backward)


def absolute_error() -> Loss:
    """C_b = Σ |a − y|."""
    return loss_from_rule(rules.absolute_error_forward, rules.absolute_error_backward)


def huber_loss(delta: float = 1.0) -> Loss:
    """C_b = Σ ½ e² where |e| ≤ delta, delta (|e| − ½ delta) elsewhere."""
    return loss_from_rule(rules.huber_loss_forward, rules.huber_loss_backward, delta=delta)


def sigmoid_cross_entropy() -> Loss:
    """Binary cross-entropy of σ(logits)."""
    return loss_from_rule(rules.sigmoid_cross_entropy_forward, rules.sigmoid_cross_entropy_backward)


def softmax_cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of softmax(logits) against labels or distributions."""
    return loss_from_rule(
        rules.softmax_cross_entropy_forward,
        rules.softmax_cross_entropy_backward,
        label_smoothing=label_smoothing,
    )


def binary_cross_entropy() -> Loss:
    """Binary cross-entropy of probabilities; after a sigmoid its composed delta is a − y."""
    return loss_from_rule(rules.binary_cross_entropy_forward, rules.binary_cross_entropy_backward)
