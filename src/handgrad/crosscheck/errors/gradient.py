"""The right gradients of one leaf, which errors are made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

Arrays = list[np.ndarray]
Made = tuple[str, np.ndarray]  # an error in words, and what it makes of a gradient


@dataclass(frozen=True, eq=False)
class Gradient:
    """The right gradients of one leaf.

    Attributes:
      name: the leaf's.
      g: (draws, *shape) float64 or complex128, one gradient for each draw of the cotangents.
      dtype: the leaf's.
      x: (*shape) the argument in float64 or complex128; None where it isn't known, or not finite.
      sizes: what a factor may be, as {"batch": 32, "length of axis 1 of W": 7}.
      others: {name: (draws, *shape)} the gradients of other leaves of the same shape.
      dYs: [draw][output] the cotangents; empty where they are not known.
      one: this leaf's gradient for other cotangents; None where it is not known, or slow.
    """

    name: str
    g: np.ndarray
    dtype: np.dtype
    x: np.ndarray | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    dYs: Sequence[Arrays] = ()
    one: Callable[[Arrays], np.ndarray] | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The leaf's."""
        return self.g.shape[1:]

    @cached_property
    def long_axes(self) -> list[int]:
        """The axes of g, but for the draws', that have more than one element."""
        return [axis for axis in range(1, self.g.ndim) if self.g.shape[axis] > 1]

    @cached_property
    def batch(self) -> int:
        """The number of examples, where the leaf's axis 0 is theirs; else 0."""
        size = self.sizes.get("batch", 0)
        return size if size > 1 and self.shape[:1] == (size,) else 0

    @cached_property
    def varied_x(self) -> np.ndarray | None:
        """x, where its elements are not all the same."""
        return self.x if self.x is not None and (self.x != self.x.flat[0]).any() else None

    @cached_property
    def complex(self) -> bool:
        """Whether it has complex numbers."""
        return np.iscomplexobj(self.g)

    @cached_property
    def size(self) -> np.ndarray:
        """|g|."""
        return np.abs(self.g)

    @cached_property
    def largest(self) -> float:
        """The largest finite |g| of all draws."""
        return float(np.max(self.size, initial=0.0, where=np.isfinite(self.size)))

    @cached_property
    def top(self) -> tuple[int, ...]:
        """The element that is largest over all draws."""
        size = np.nan_to_num(np.max(self.size, axis=0), posinf=0.0)
        return tuple(int(i) for i in np.unravel_index(np.argmax(size), size.shape))


def is_gradient(array: Any) -> bool:
    """Whether it holds numbers that can be wrong: floating point or complex (of any precision), and not empty."""
    return jnp.issubdtype(array.dtype, jnp.inexact) and array.size > 0


def wide(array: Any) -> np.ndarray:
    """The array in float64, or complex128."""
    return np.asarray(array).astype(np.complex128 if jnp.iscomplexobj(array) else np.float64)


def argument(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """An argument as errors use it: wide; None where it is of another shape, or not finite."""
    x = wide(value)
    return x if x.shape == shape and np.isfinite(x).all() else None
