"""A step of a table and a linear layer behind it."""

import optax

from baselines.steps import stepping


def loss(params, ids, labels):
    """Mean cross-entropy of a batch."""
    (table,), _, linear = params
    logits = table[ids].reshape(ids.shape[0], -1) @ linear.W + linear.b
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(**sizes):
    """One way."""
    return stepping(loss, clip=False)
