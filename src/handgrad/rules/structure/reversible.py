"""The reversible block: its input is recomputed from its output, so that nothing else need be kept.

Two streams, each of which is changed by a function of the other (Gomez et al., 2017):

    Y₁ = X₁ + F(X₂)        Y₂ = X₂ + G(Y₁)
    X₂ = Y₂ − G(Y₁)        X₁ = Y₁ − F(X₂)

F and G are any functions; neither has to be invertible itself. So the rule is a rule about functions, not about arrays
alone, and takes them as they are: a forward pass is x -> (y, its pull-back), a pull-back is dy -> (dx, dparams).

Derivation: docs/derivations/structure/reversible.md (Gomez et al., 2017)
"""

from collections.abc import Callable
from typing import Any

import jax

from handgrad.checks import InputError, check_shape, describe

__all__ = ["couple", "pull_back_coupling", "uncouple"]

Array = jax.Array
PullBack = Callable[[Array], tuple[Array, Any]]
Linearized = Callable[[Array], tuple[Array, PullBack]]


def couple(f: Callable[[Array], Array], g: Callable[[Array], Array], X1: Array, X2: Array) -> tuple[Array, Array]:
    """Y₁ = X₁ + F(X₂), Y₂ = X₂ + G(Y₁).

    Args:
      f, g: array -> array of its shape and dtype.
      X1, X2: (batch, ...) the two streams.
    Returns:
      Y1, Y2 like X1, X2.
    Raises:
      InputError: F(X₂) is unlike X₁, or G(Y₁) unlike X₂.
    """
    Y1 = X1 + _like(X1, f(X2), "F(X2)", "X1")
    Y2 = X2 + _like(X2, g(Y1), "G(Y1)", "X2")
    return Y1, Y2


def uncouple(f: Callable[[Array], Array], g: Callable[[Array], Array], Y1: Array, Y2: Array) -> tuple[Array, Array]:
    """X₂ = Y₂ − G(Y₁), X₁ = Y₁ − F(X₂): the input again, to rounding.

    Args:
      f, g: as for couple.
      Y1, Y2: (batch, ...) the outputs.
    Returns:
      X1, X2 like Y1, Y2.
    Raises:
      InputError: as couple.
    """
    X2 = Y2 - _like(Y2, g(Y1), "G(Y1)", "Y2")
    X1 = Y1 - _like(Y1, f(X2), "F(X2)", "Y1")
    return X1, X2


def pull_back_coupling(
    f: Linearized, g: Linearized, Y: tuple[Array, Array], dY: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array], tuple[Any, Any]]:
    """Pull dY back through the coupling, and find its input on the way: F and G run once more, nothing was kept.

        dX₁ = dY₁ + (∂G)ᵀ dY₂        dX₂ = dY₂ + (∂F)ᵀ dX₁        dF = dX₁, dG = dY₂ at their own outputs

    Args:
      f, g: X -> (its value, dvalue -> (dX, dparams)).
      Y: Y1, Y2, the outputs.
      dY: dY1, dY2, their cotangents.
    Returns:
      X1, X2; dX1, dX2; dparams of f and of g.
    Raises:
      InputError: as couple; dY1 or dY2 unlike its output.
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


def _like(X: Array, change: Array, name: str, of: str) -> Array:
    """What is added to a stream has its shape and dtype."""
    if change.shape != X.shape or change.dtype != X.dtype:
        raise InputError(f"couple: {name} must be like {of}, {describe(X)}, got {describe(change)}")
    return change
