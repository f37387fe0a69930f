"""What a fold costs: the basis on which a factor chooses its method."""

from typing import NamedTuple


class Cost(NamedTuple):
    """What one method of ‖g_b‖² costs, for one example.

    Attributes:
      flops: multiplications and additions.
      bytes: memory beside the factor, at the dtype of the sum.
    """

    flops: int
    bytes: int


def cheapest(methods: dict[str, Cost]) -> str:
    """The method of fewest operations; of two alike, the first."""
    return min(methods, key=lambda name: methods[name].flops)
