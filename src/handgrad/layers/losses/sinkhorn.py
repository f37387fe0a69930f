"""sinkhorn: the entropic transport cost as a loss of a cost matrix."""

from typing import Literal, NamedTuple

from jaxtyping import Array, Float

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Loss
from handgrad.rules.losses.sinkhorn import SinkhornResiduals

__all__ = ["TransportTarget", "sinkhorn"]


class TransportTarget(NamedTuple):
    """Between which weights `sinkhorn` moves, each example's with the sum 1; None is equal weights.

    Attributes:
      a: of the rows of the cost matrix.
      b: of its columns.
    """

    a: Float[Array, "batch n"] | None = None
    b: Float[Array, "batch m"] | None = None


def sinkhorn(*, epsilon: float, iterations: int, residuals: Literal["save", "recompute"] = "save") -> Loss:
    """C_b = the entropic cost of transport under cost matrices (batch, n, m), against a TransportTarget.

    Args:
      epsilon: of the entropy.
      iterations: how many of Sinkhorn's.
      residuals: "save" keeps the potentials of each iteration, "recompute" computes them again.
    Derivation: docs/derivations/losses/sinkhorn.md
    """
    rule = rules.sinkhorn.with_options(epsilon=epsilon, iterations=iterations, residuals=residuals)

    def forward(prediction: Array, target: TransportTarget) -> tuple[Array, SinkhornResiduals]:
        if not isinstance(target, TransportTarget):
            raise InputError(f"sinkhorn: target must be a TransportTarget, got {describe(target)}")
        return rule.forward(prediction, *target)

    def backward(kept: SinkhornResiduals, dloss: Float[Array, " batch"]) -> Array:
        return rule.backward(kept, dloss)[0]

    return Loss(forward, backward)
