"""Contraction: the gradient of a parameter that an einsum contracts, Σ_b einsum(A_b, Δ_b)."""

import math
import re
from dataclasses import dataclass, field

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, describe
from handgrad.factors.base import Factor, Gradient, Gradients, Weights, accumulator, weighted
from handgrad.factors.costs import Cost


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Contraction(Factor):
    """g_b = einsum of A_b and Δ_b: the weights of a tensor contraction, of any number of axes.

    It generalizes `Outer`, which is Contraction(A, Delta, "bti,bto->io"), and `Hadamard`, "bti,bti->i". The first
    letter of both sides is the example, and no letter of the parameter.

    Attributes:
      A: what the parameter was contracted with.
      Delta: cotangent of the contraction.
      subscripts: "A's letters,Delta's letters->the parameter's letters", one for each axis.
    Derivation: docs/derivations/linear/einsum.md
    """

    A: Float[Array, " batch ..."]
    Delta: Float[Array, " batch ..."]
    subscripts: str = field(metadata={"static": True})
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        a, d, w = self._letters()
        sizes = dict(zip(a + d, (*self.A.shape, *self.Delta.shape), strict=True))
        return tuple(sizes[letter] for letter in w)

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b einsum(A_b, Δ_b): ONE contraction, which sums over the batch too."""
        a, d, w = self._checked()
        return _contract(f"{a},{d}->{w}", self.A, weighted(self.Delta, weights))

    def per_example(self) -> Gradients:
        a, d, w = self._checked()
        return _contract(f"{a},{d}->{a[0]}{w}", self.A, self.Delta)

    def second_moment(self) -> Gradient:
        """einsum(A∘A, Δ∘Δ) where g_b sums over no axis: (a δ)² = a² δ²."""
        a, d, w = self._checked()
        if set(a[1:] + d[1:]) != set(w) or _repeats(a) or _repeats(d):
            return super().second_moment()
        dtype = accumulator(self.A, self.Delta)
        return _contract(f"{a},{d}->{w}", self.A.astype(dtype) ** 2, self.Delta.astype(dtype) ** 2)

    def norm_methods(self) -> dict[str, Cost]:
        """direct: the contraction of each g_b, one product for each combination of indices."""
        a, d, _ = self._checked()
        sizes = dict(zip(a + d, (*self.A.shape, *self.Delta.shape), strict=True))
        products = math.prod(sizes[letter] for letter in set(a + d) - {a[0]})
        size = math.prod(self.shape)
        return {"direct": Cost(2 * products + 2 * size, size * accumulator(self.A, self.Delta).itemsize)}

    def _letters(self) -> tuple[str, str, str]:
        """The letters of A, of Delta and of the parameter."""
        found = re.fullmatch(r"([a-zA-Z]+),([a-zA-Z]+)->([a-zA-Z]*)", self.subscripts)
        if not found:
            raise InputError(f"Contraction: subscripts must be like 'bti,bto->io', got {self.subscripts!r}")
        return found.group(1), found.group(2), found.group(3)

    def _checked(self) -> tuple[str, str, str]:
        """The letters, checked against the sides: nothing is broadcast."""
        a, d, w = self._letters()
        if a[0] != d[0] or a[0] in w:
            wanted = "subscripts must begin with one batch letter on both sides, and not have it in the parameter"
            raise InputError(f"Contraction: {wanted}, got {self.subscripts!r}")
        if _repeats(w) or not set(w) <= set(a + d):
            wanted = "subscripts must give the parameter letters of A or Delta, each once"
            raise InputError(f"Contraction: {wanted}, got {self.subscripts!r}")
        sizes: dict[str, int] = {}
        for name, letters, side in (("A", a, self.A), ("Delta", d, self.Delta)):
            if len(letters) != side.ndim:
                raise InputError(
                    f"Contraction: {name} must have {len(letters)} axes, '{letters}', got {describe(side)}"
                )
            for letter, size in zip(letters, side.shape, strict=True):
                if sizes.setdefault(letter, size) != size:
                    wanted = f"{name} must have {sizes[letter]} along '{letter}' of '{letters}'"
                    raise InputError(f"Contraction: {wanted}, got {describe(side)}")
        return a, d, w


def _repeats(letters: str) -> bool:
    return len(set(letters)) != len(letters)


def _contract(subscripts: str, A: Array, Delta: Array) -> Array:
    return meshes.einsum(subscripts, A, Delta, accumulator(A, Delta))
