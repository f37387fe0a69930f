"""Layers of matrices: a batch of them, never a single one, whose rows a network would take for examples."""

from typing import Any

from jaxtyping import Array, PyTree

from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, from_rule
from handgrad.rule import Rule


def from_matrix_rule(rule: Rule[..., PyTree], *names: str, matrix: int = 0) -> Layer:
    """`from_rule` for a rule of matrices.

    Args:
      rule: of one matrix, or of several arguments.
      *names: the arguments' names, where there are several: x is the tuple of them, and so is dx.
      matrix: the argument that is a matrix, and whose axes tell whether there is a batch.
    """
    where = f"{rule.__name__}_forward"
    wanted = f"a {'pair' if len(names) == 2 else 'tuple'} ({', '.join(names)})"

    def forward(x: Any) -> tuple[PyTree, PyTree]:
        if names and not (isinstance(x, tuple) and len(x) == len(names)):
            raise InputError(f"{where}: x must be {wanted}, got {describe(x)}")
        arguments = x if names else (x,)
        if getattr(arguments[matrix], "ndim", 3) < 3:
            name, got = (names or ("X",))[matrix], describe(arguments[matrix])
            raise InputError(f"{where}: in a layer, {name} must be a batch of matrices, (batch, ..., m, n), got {got}")
        return rule.forward(*arguments)

    def backward(residuals: PyTree, dy: Array) -> tuple[PyTree]:
        dx = rule.backward(residuals, dy)
        return (dx if names else dx[0],)

    forward.__name__ = where
    return from_rule(Rule(forward, backward))
