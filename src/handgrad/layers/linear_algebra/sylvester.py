"""Sylvester's and Lyapunov's equations as layers, without parameters; x is the tuple of the equation's matrices."""

from handgrad import rules
from handgrad.layers.layer import Layer
from handgrad.layers.linear_algebra._batched import from_matrix_rule
from handgrad.rules.linear_algebra.sylvester import Method

__all__ = ["discrete_lyapunov", "lyapunov", "sylvester"]


def sylvester(*, method: Method = "kronecker") -> Layer:
    """Y of A Y + Y B = C, of x = (A, B, C).

    Args:
      method: "kronecker", one system of m n equations; or "sign", Newton's iteration, for eigenvalues of A and B that
        are all on one side of the imaginary axis.
    """
    return from_matrix_rule(rules.sylvester.with_options(method=method), "A", "B", "C")


def lyapunov(*, method: Method = "kronecker") -> Layer:
    """Y of A Y + Y Aᵀ = Q, of x = (A, Q); `method` as in `sylvester`."""
    return from_matrix_rule(rules.lyapunov.with_options(method=method), "A", "Q")


def discrete_lyapunov() -> Layer:
    """Y of Y = A Y Aᵀ + Q, of x = (A, Q)."""
    return from_matrix_rule(rules.discrete_lyapunov, "A", "Q")
