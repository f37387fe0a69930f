"""The arguments of a rule that is explained: few examples, small arrays, numbers of one decimal."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.cases import Case
from handgrad.explain.matrix import WHOLE

EXAMPLES = 2  # that are kept
AXIS = 3  # what the axes of large arrays are cut to
Arrays = tuple[Any, ...]


def rounded(given: Arrays) -> Arrays:
    """Numbers of one decimal, which are easier to read."""
    return tuple(jnp.round(a, 1) + 0.0 if moves(a) else a for a in given)


def cut(case: Case, given: Arrays, examples: int) -> Arrays:
    """The arguments with their first examples alone, where both the rule and its reference take them."""
    batch = next((len(a) for a in given if moves(a) and a.ndim), 0)
    if batch <= examples:
        return given
    fewer = tuple(a[:examples] if shows(a) and a.ndim and len(a) == batch else a for a in given)
    return fewer if _takes(case, fewer) else given


def smaller(case: Case, given: Arrays) -> Arrays:
    """Arguments of which one is too large to be shown, with one example; without integers, which may be indices, with
    shorter axes too."""
    shapes = [a.shape for a in given if shows(a)]
    if max(map(math.prod, shapes), default=0) <= WHOLE:
        return given
    given = cut(case, given, 1)
    if not all(moves(a) for a in given if shows(a)):
        return given
    for size in sorted({n for shape in shapes for n in shape if n > AXIS}, reverse=True):
        fewer = tuple(a[tuple(slice(AXIS if n == size else None) for n in a.shape)] if shows(a) else a for a in given)
        given = fewer if _takes(case, fewer) else given
    with_heads = [shows(a) and a.ndim == 4 for a in given]
    if sum(with_heads) == 1:  # an image
        return given
    one_head = tuple(a[:, :, :1] if has else a for a, has in zip(given, with_heads, strict=True))
    return one_head if _takes(case, one_head) else given


def _takes(case: Case, fewer: Arrays) -> bool:
    """Whether the rule and its reference take these arguments and return arrays of the same shapes."""
    try:
        ours = jax.eval_shape(lambda *a: case.settled.forward(*a)[0], *fewer)
        theirs = jax.eval_shape(case.expected, *fewer)
    except Exception:  # whatever a function says to arguments that don't fit together
        return False
    shapes = [jax.tree.map(lambda y: y.shape, y) for y in (ours, theirs)]
    return shapes[0] == shapes[1]


def as_array(a: Any) -> Any:
    """NumPy's as JAX's; an omitted argument stays."""
    return a if a is None or isinstance(a, jax.Array) else jnp.asarray(a)


def moves(a: Any) -> bool:
    """Whether it is differentiable."""
    return a is not None and jnp.issubdtype(a.dtype, jnp.inexact)


def shows(a: Any) -> bool:
    """Whether it is an array of numbers: not an omitted argument, nor a random key, which may be words of 32 bits."""
    return a is not None and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key) and a.dtype != jnp.uint32


def tenths(rng: np.random.Generator, like: Any) -> Array:
    """Random numbers of one decimal, as many as `like` has."""

    def drawn() -> np.ndarray:
        return np.round(rng.standard_normal(like.shape), 1) + 0.0

    return jnp.asarray(drawn() + 1j * drawn() if jnp.issubdtype(like.dtype, jnp.complexfloating) else drawn())
