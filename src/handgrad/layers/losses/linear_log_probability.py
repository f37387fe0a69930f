"""linear_log_probability: any loss of log-probabilities as a loss of a head that leaves its last product to it."""

from typing import NamedTuple

from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss, check_loss
from handgrad.layers.losses.linear_cross_entropy import Projection, counts, of_projection
from handgrad.rules.losses._targets import Labels

__all__ = ["LogProbabilityTarget", "linear_log_probability"]


class LogProbabilityTarget(NamedTuple):
    """What `linear_log_probability` compares with.

    Attributes:
      labels: the token at each place.
      target: of the loss of their log-probabilities.
    """

    labels: Labels
    target: PyTree


def linear_log_probability(
    loss: Loss, *, chunk: int = 256, ignore_index: int | None = None, softcap: float | None = None
) -> Loss:
    """`loss` of the log-probability of each label by a `projection`'s logits, `chunk` tokens' logits at a time.

    `chain(..., projection(n))` under `linear_log_probability(dpo_loss())` trains on preferences, against
    LogProbabilityTarget(labels, target), and (tokens, n) is never materialized.

    Args:
      loss: of log-probabilities shaped like the labels: dpo_loss, ipo_loss, ppo_loss, grpo_loss, or one of your own.
      chunk, ignore_index, softcap: as for `rules.linear_log_probability`.
    Derivation: docs/derivations/losses/linear_log_probability.md
    """
    check_loss("linear_log_probability", loss)
    rule = rules.linear_log_probability.with_options(chunk=chunk, ignore_index=ignore_index, softcap=softcap)
    log_probabilities, pulled_back = of_projection("linear_log_probability", rule)

    def forward(
        prediction: Projection, target: LogProbabilityTarget
    ) -> tuple[Array, tuple[PyTree, Projection, PyTree]]:
        if not isinstance(target, LogProbabilityTarget):
            raise InputError(f"linear_log_probability: target must be a LogProbabilityTarget, got {describe(target)}")
        L, kept = log_probabilities(prediction, target.labels)
        losses, of_loss = loss.forward(L, target.target)
        return losses, (*kept, of_loss)

    def backward(residuals: tuple[PyTree, Projection, PyTree], dloss: Array) -> Projection:
        kept, form, of_loss = residuals
        return pulled_back((kept, form), loss.backward(of_loss, dloss))

    return Loss(forward, backward, couples=loss.couples, counts=counts(ignore_index))
