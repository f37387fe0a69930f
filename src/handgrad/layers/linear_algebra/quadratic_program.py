"""The quadratic program as a layer, without parameters: the x is the program."""

from typing import NamedTuple

from jaxtyping import Array, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, from_rule
from handgrad.rule import Rule

__all__ = ["QuadraticProgram", "quadratic_program"]


class QuadraticProgram(NamedTuple):
    """min ½ zᵀ Q z + qᵀ z under A z = b and G z ≤ h, a program for each example; or its cotangents.

    Attributes:
      Q: (batch, ..., n, n).
      q: (batch, ..., n).
      A, b: (batch, ..., m, n), (batch, ..., m), or None.
      G, h: (batch, ..., p, n), (batch, ..., p), or None.
    """

    Q: Array
    q: Array
    A: Array | None = None
    b: Array | None = None
    G: Array | None = None
    h: Array | None = None


def quadratic_program(*, iterations: int = 25) -> Layer:
    """z = argmin ½ zᵀ Q z + qᵀ z, of x = QuadraticProgram(Q, q, A, b, G, h).

    Args:
      iterations: of the interior-point method.
    """
    rule = rules.quadratic_program.with_options(iterations=iterations)

    def forward(x: QuadraticProgram) -> tuple[Array, PyTree]:
        if not isinstance(x, QuadraticProgram):
            raise InputError(f"quadratic_program_forward: x must be a QuadraticProgram, got {describe(x)}")
        return rule.forward(*x)

    def backward(residuals: PyTree, dY: Array) -> tuple[QuadraticProgram]:
        return (QuadraticProgram(*rule.backward(residuals, dY)),)

    forward.__name__ = "quadratic_program_forward"
    return from_rule(Rule(forward, backward))
