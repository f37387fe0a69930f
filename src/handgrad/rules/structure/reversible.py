"""The reversible block: its input is recomputed from its output, so only the output is kept.

Two streams, each updated by a function of the other (Gomez et al., 2017):

    Y₁ = X₁ + F(X₂)        Y₂ = X₂ + G(Y₁)
    X₂ = Y₂ − G(Y₁)        X₁ = Y₁ − F(X₂)

F and G are any functions that preserve shape and dtype; neither has to be invertible. The rule takes them as
arguments: `couple` and `uncouple` as plain functions, `pull_back_coupling` as X -> (value, its pull-back).

Derivation: docs/derivations/structure/reversible.md (Gomez et al., 2017)
"""

from collections.abc import Callable
from typing import TypeVar

from jaxtyping import Array, Float

from handgrad.checks import InputError, check_shape, describe

__all__ = ["couple", "pull_back_coupling", "uncouple"]

Stream = Float[Array, "batch *rest"]
Streams = tuple[Stream, Stream]
Function = Callable[[Stream], Stream]
D = TypeVar("D")
E = TypeVar("E")
Linearized = Callable[[Stream], tuple[Stream, Callable[[Stream], tuple[Stream, D]]]]


def couple(f: Function, g: Function, X1: Stream, X2: Stream) -> Streams:
    """Y₁ = X₁ + F(X₂), Y₂ = X₂ + G(Y₁)."""
    Y1 = X1 + _like(X1, f(X2), "F(X2)", "X1")
    Y2 = X2 + _like(X2, g(Y1), "G(Y1)", "X2")
    return Y1, Y2


def uncouple(f: Function, g: Function, Y1: Stream, Y2: Stream) -> Streams:
    """X₂ = Y₂ − G(Y₁), X₁ = Y₁ − F(X₂): the inverse of couple, to rounding."""
    X2 = Y2 - _like(Y2, g(Y1), "G(Y1)", "Y2")
    X1 = Y1 - _like(Y1, f(X2), "F(X2)", "Y1")
    return X1, X2


def pull_back_coupling(
    f: Linearized[D], g: Linearized[E], Y: Streams, dY: Streams
) -> tuple[Streams, Streams, tuple[D, E]]:
    """Pull dY back through the coupling, and recompute its input: F and G run once more.

        dX₁ = dY₁ + (∂G)ᵀ dY₂        dX₂ = dY₂ + (∂F)ᵀ dX₁        dF = dX₁, dG = dY₂ at their own outputs

    Args:
      f, g: X -> (value, dvalue -> (dX, dparams)).
      Y: the outputs Y1, Y2.
      dY: their cotangents.
    Returns:
      (X1, X2); (dX1, dX2); dparams of f and of g.
    """
    (Y1, Y2), (dY1, dY2) = Y, dY
    for name, dy, y in (("dY1", dY1, Y1), ("dY2", dY2, Y2)):
        check_shape("pull_back_coupling", name, dy, y.shape, "like its output")
    G, through_g = g(Y1)
    X2 = Y2 - G
    dX1, dparams_g = through_g(dY2)
    dX1 = dY1 + dX1
    F, through_f = f(X2)
    X1 = Y1 - F
    dX2, dparams_f = through_f(dX1)
    dX2 = dY2 + dX2
    return (X1, X2), (dX1, dX2), (dparams_f, dparams_g)


def _like(X: Stream, change: Array, name: str, of: str) -> Stream:
    """`change`, of X's shape and dtype: nothing is broadcast or promoted."""
    if change.shape != X.shape or change.dtype != X.dtype:
        raise InputError(f"couple: {name} must be like {of}, {describe(X)}, got {describe(change)}")
    return change
