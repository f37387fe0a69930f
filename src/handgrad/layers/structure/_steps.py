"""What a solution of many steps is made of: the grid of steps, and the gradients of all stages as one."""

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from handgrad.checks import InputError
from handgrad.factors import Factor, is_factor
from handgrad.factors.base import accumulator
from handgrad.factors.sites import over_sites

Grid = tuple[Float[np.ndarray, "segments steps"], Float[np.ndarray, "segments steps"]]


def check_times(where: str, times: object) -> None:
    """At least two numbers, one after the other in one direction."""
    try:
        differences = np.diff(np.asarray(times, float))
        ordered = differences.ndim == 1 and differences.size and (all(differences > 0) or all(differences < 0))
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        raise InputError(f"{where}: times must be at least two numbers, increasing or decreasing, got {times!r}")


def segment_of(steps: int) -> int:
    """Steps of a segment: near √steps, and such that the last segment is filled up with as few as possible."""
    root = math.isqrt(steps)
    return min(range((root + 1) // 2, 2 * root + 1), key=lambda n: (-steps % n, abs(n - root)))


def grid_of(times: Sequence[float], steps: int, segment: int) -> Grid:
    """When each step begins, and how long it is; steps of length 0 fill an interval's last segment up."""
    rows = -(-steps // segment)
    starts, ends = np.asarray(times[:-1], float)[:, None], np.asarray(times[1:], float)[:, None]
    k = np.arange(rows * segment)[None]
    t = starts + (ends - starts) * np.minimum(k, steps) / steps
    h = np.where(k < steps, (ends - starts) / steps, 0.0)
    return t.reshape(-1, segment), h.reshape(-1, segment)


def split(stages: Sequence[PyTree]) -> tuple[list[Array], list[Factor]]:
    """Of the dparams of several stages: gradients that are summed already, added up; factors, their arrays stacked."""
    sums, factors = [], []
    for sites in zip(*(jax.tree.leaves(dparams, is_leaf=is_factor) for dparams in stages), strict=True):
        if is_factor(sites[0]):
            factors.append(jax.tree.map(lambda *sides: jnp.stack(sides), *sites))
        else:
            sums.append(functools.reduce(operator.add, sites))
    return sums, factors


def zeros_of_sums(like: PyTree) -> list[Array]:
    """Where sums begin, in float32 at least, for dparams like these."""
    leaves = jax.tree.leaves(like, is_leaf=is_factor)
    return [jnp.zeros(leaf.shape, accumulator(leaf)) for leaf in leaves if not is_factor(leaf)]


def added_to(totals: list[Array], sums: list[Array]) -> list[Array]:
    return [total + s.astype(total.dtype) for total, s in zip(totals, sums, strict=True)]


def joined(like: PyTree, totals: list[Array], factors: list[Factor]) -> PyTree:
    """dparams with the structure of `like`: sums in its dtypes, and of factors stacked by segment, step and stage the
    one of their sum."""
    leaves, structure = jax.tree.flatten(like, is_leaf=is_factor)
    sums, stacks = iter(totals), iter(factors)

    def of_leaf(leaf: Array | Factor) -> Array | Factor:
        if not is_factor(leaf):
            return next(sums).astype(leaf.dtype)
        return jax.tree.map(lambda a: a.reshape(math.prod(a.shape[:3]), *a.shape[3:]), next(stacks))

    return over_sites(structure.unflatten([of_leaf(leaf) for leaf in leaves]))
