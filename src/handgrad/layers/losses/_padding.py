"""A loss of labels on Sequences of logits: steps past an example's end have none."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_shape, describe, is_integer
from handgrad.layers.layer import Loss
from handgrad.layers.sequences.sequences import Sequences

PAST = int(np.iinfo(np.int32).min)  # in the place of a label past an example's end: nobody's class


class PaddedLossResiduals(NamedTuple):
    """kept: residuals of the loss that ignores what is past an example's end."""

    kept: PyTree


def of_sequences(where: str, make: Callable[[int | None], Loss], ignore_index: int | None) -> Loss:
    """`make(ignore_index)`, and on Sequences of logits the same loss of each example's own steps.

    Args:
      where: the function that errors name.
      make: a loss that ignores this label, or none.
    """
    whole = make(ignore_index)
    mark = PAST if ignore_index is None else ignore_index
    padded = whole if ignore_index is not None else make(mark)

    def forward(prediction: PyTree, target: PyTree) -> tuple[Array, PyTree]:
        if not isinstance(prediction, Sequences):
            return whole.forward(prediction, target)
        losses, kept = padded.forward(prediction.X, _own_labels(where, prediction, target, mark))
        return losses, PaddedLossResiduals(kept)

    def either(of_array: Callable[..., PyTree], of_padded: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """A function of (residuals, ...), its result Sequences where the prediction was."""

        def function(residuals: PyTree, given: Array | PRNGKeyArray) -> PyTree:
            if isinstance(residuals, PaddedLossResiduals):
                return Sequences(of_padded(residuals.kept, given))
            return of_array(residuals, given)

        return function

    def counts(residuals: PyTree) -> Array | None:
        if isinstance(residuals, PaddedLossResiduals):
            assert padded.counts is not None
            return padded.counts(residuals.kept)
        return None if whole.counts is None else whole.counts(residuals)

    def at_once(prediction: PyTree, target: PyTree, dloss: Array) -> tuple[Array, PyTree]:
        assert whole.at_once is not None
        assert padded.at_once is not None
        if not isinstance(prediction, Sequences):
            return whole.at_once(prediction, target, dloss)
        labels = _own_labels(where, prediction, target, mark)
        losses, dX = padded.at_once(prediction.X, labels, dloss)
        return losses, Sequences(dX)

    forward.__qualname__ = where  # the loss's name, wherever it is shown
    return whole._replace(
        forward=forward,
        backward=either(whole.backward, padded.backward),
        draw=whole.draw and padded.draw and either(whole.draw, padded.draw),
        counts=counts,
        at_once=whole.at_once and at_once,
    )


def _own_labels(where: str, prediction: Sequences, target: PyTree, mark: int) -> Array:
    """The labels, `mark` past each example's end."""
    Y = target.X if isinstance(target, Sequences) else target
    if prediction.lengths is None:
        return Y
    if not (is_integer(Y) and len(Y.shape) == 2):
        raise InputError(
            f"{where}: the target Y must be labels of shape (batch, time) for Sequences of logits, got {describe(Y)}"
        )
    check_shape(where, "the logits' lengths", prediction.lengths, Y.shape[:1], "(one for each example)")
    own = jnp.expand_dims(jnp.arange(Y.shape[1]), 0) < jnp.expand_dims(jnp.asarray(prediction.lengths), 1)
    Y = jnp.asarray(Y)
    Y = Y.astype(jnp.promote_types(Y.dtype, jnp.int32))  # which has room for the mark
    return jnp.where(own, Y, jnp.asarray(mark, Y.dtype))
