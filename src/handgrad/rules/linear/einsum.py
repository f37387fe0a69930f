"""Tensor contraction: any einsum of two operands. The cotangents of an einsum are einsums."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_cotangent, check_residuals
from handgrad.factors import Contraction
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.linear._subscripts import read, shape_of

__all__ = [
    "ContractionResiduals",
    "EinsumResiduals",
    "contraction",
    "contraction_backward",
    "contraction_forward",
    "einsum",
    "einsum_backward",
    "einsum_forward",
]

Tensor = Float[Array, "..."]  # one axis for each letter of its subscripts
Inputs = Float[Array, "batch ..."]


class EinsumResiduals(NamedTuple):
    """The operands: references, no copies.

    Attributes:
      A: the first operand, for dB.
      B: the second operand, for dA.
    """

    A: Tensor
    B: Tensor


def einsum_forward(A: Tensor, B: Tensor, *, subscripts: str) -> tuple[Tensor, EinsumResiduals]:
    """Y = einsum(subscripts, A, B): every letter that Y doesn't have is summed over.

    As jnp.einsum: a letter twice in one operand is its diagonal; "..." stands for any axes, the only ones that
    broadcast; without "->", Y has "..." and the letters that occur once, in alphabetical order.

    Args:
      subscripts: "ij,jk->ik", "bthd,bshd->bhts", "...ij,...jk", ...
    Raises:
      InputError: not two operands; an output letter that no operand has, or twice; axes that don't fit the letters;
        one letter with two sizes.
    Derivation: docs/derivations/linear/einsum.md
    """
    check_array("einsum_forward", "A", A)
    check_array("einsum_forward", "B", B)
    a, b, y = read("einsum_forward", subscripts, A=A, B=B)
    return _contract(f"{a},{b}->{y}", A, B).astype(jnp.result_type(A, B)), EinsumResiduals(A, B)


def einsum_backward(residuals: EinsumResiduals, dY: Tensor, *, subscripts: str) -> tuple[Tensor, Tensor]:
    """Pull dY back through Y = einsum("a,b->y", A, B); a, b and y are the letters of A, B and Y.

        dA = einsum("y,b->a", dY, B)      dB = einsum("y,a->b", dY, A)

    A letter that only A has was summed over: dA is constant along it. A letter that A has twice was a diagonal: dA is
    zero off the diagonal.

    Derivation: docs/derivations/linear/einsum.md
    """
    A, B = check_residuals("einsum_backward", residuals, EinsumResiduals)
    a, b, y = read("einsum_backward", subscripts, A=A, B=B)
    check_cotangent("einsum_backward", dY, shape_of(y, a, A, b, B), jnp.result_type(A, B))
    return _pull_back(y, dY, b, B, a, A), _pull_back(y, dY, a, A, b, B)


einsum = Rule(einsum_forward, einsum_backward)


class ContractionResiduals(NamedTuple):
    """The operation's arguments: references, no copies.

    Attributes:
      X: input, the left side of dW.
      W: parameter, for dX.
    """

    X: Inputs
    W: Tensor


def contraction_forward(X: Inputs, W: Tensor, *, subscripts: str) -> tuple[Inputs, ContractionResiduals]:
    """Y = einsum(subscripts, X, W) with a parameter W: linear's generalization to tensors.

    Args:
      W: one axis for each letter, each letter once, and each in X or Y too.
      subscripts: "bti,io->bto", "bthi,hio->btho", "b...i,io->b...o", ...; the first letter of X and of Y is the
        example, and W does not have it.
    Raises:
      InputError: as einsum_forward; X and Y don't begin with the same letter; W has that letter, one letter twice,
        "...", or a letter that neither X nor Y has.
    Derivation: docs/derivations/linear/einsum.md
    """
    where = "contraction_forward"
    check_array(where, "X", X)
    check_array(where, "W", W)
    x, w, y = read(where, subscripts, X=X, W=W)
    if x[:1] != y[:1] or not x or x[0] in w or x.count(x[0]) > 1:
        wanted = "subscripts must begin X and Y with the batch letter, which W does not have"
        raise InputError(f"{where}: {wanted}, got {subscripts!r}")
    if "..." in subscripts.partition(",")[2].partition("->")[0] or len(set(w)) != len(w) or not set(w) <= set(x + y):
        raise InputError(f"{where}: subscripts must give W letters of X or Y, each once, got {subscripts!r}")
    return _contract(f"{x},{w}->{y}", X, W).astype(jnp.result_type(X, W)), ContractionResiduals(X, W)


def contraction_backward(residuals: ContractionResiduals, dY: Inputs, *, subscripts: str) -> tuple[Inputs, Contraction]:
    """Pull dY back through Y = einsum("x,w->y", X, W).

        dX = einsum("y,w->x", dY, W)      dW = einsum("x,y->w", X, dY)

    Derivation: docs/derivations/linear/einsum.md
    """
    X, W = check_residuals("contraction_backward", residuals, ContractionResiduals)
    x, w, y = read("contraction_backward", subscripts, X=X, W=W)
    check_cotangent("contraction_backward", dY, shape_of(y, x, X, w, W), jnp.result_type(X, W))
    return _pull_back(y, dY, w, W, x, X), Contraction(X, dY, f"{x},{y}->{w}", W.dtype)


contraction = Rule(contraction_forward, contraction_backward)


def _contract(subscripts: str, A: Tensor, B: Tensor) -> Tensor:
    return meshes.einsum(subscripts, A, B, accumulator(A, B))


def _pull_back(y: str, dY: Tensor, b: str, B: Tensor, a: str, A: Tensor) -> Tensor:
    """The cotangent of A, from dY and the other operand."""
    known = "".join(dict.fromkeys(letter for letter in a if letter in y + b))
    dA = _contract(f"{y},{b}->{known}", dY, B)
    # What is known goes to each letter's first place in a; along every other axis of A it is the same ...
    elsewhere = [i for i, letter in enumerate(a) if letter not in known or a.index(letter) != i]
    dA = jnp.broadcast_to(jnp.expand_dims(dA, elsewhere), A.shape)
    # ... and off a diagonal it is 0.
    for i, letter in enumerate(a):
        if (first := a.index(letter)) != i:
            rows, columns = (jax.lax.broadcasted_iota(jnp.int32, A.shape, axis) for axis in (first, i))
            dA = jnp.where(rows == columns, dA, 0)
    return dA.astype(A.dtype)
