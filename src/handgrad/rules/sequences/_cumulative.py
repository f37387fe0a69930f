"""The backward pass of every recurrence y_t = f(y_{t−1}, x_t): a linear recurrence from the other end."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.rules._wide import wide
from handgrad.rules.sequences._along import from_middle, to_middle
from handgrad.rules.sequences._recurrence import State, Steps
from handgrad.rules.sequences._walks import at, by_platform, walk

Numbers = Float[Array, "batch *rest n"]
Slopes = Callable[[Array, Array, Array], tuple[Array, Array]]  # (x_t, y_{t−1}, y_t) -> (k_t, s_t)


def pulled(slopes: Slopes, nothing: float, X: Numbers, Y: Numbers, dY: Numbers, axis: int, reverse: bool) -> Numbers:
    """dX of y_t = f(y_{t−1}, x_t), whose slopes by its two arguments are k_t and s_t:

        r_t = dy_t + k_{t+1} r_{t+1}        dx_t = s_t r_t

    Args:
      nothing: stands before the first element.
    """
    if not dY.size:
        return dY
    ways = (partial(way, slopes, nothing, reverse) for way in (by_scan, in_turn))
    dX = by_platform(None, *ways, *(to_middle(a, axis) for a in wide(X, Y, dY)))
    return from_middle(dX, axis, dY.shape).astype(dY.dtype)


def in_turn(slopes: Slopes, nothing: float, reverse: bool, X: Steps, Y: Steps, dY: Steps) -> Steps:
    """One element after the other."""
    start = X.shape[1] - 1 if reverse else 0

    def step(passed: State, t: Array) -> tuple[State, tuple[State]]:
        before = jnp.where(t == start, nothing, at(Y, t + 1 if reverse else t - 1))
        k, s = slopes(at(X, t), before, at(Y, t))
        r = at(dY, t) + passed
        return _times(k, r), (_times(s, r),)

    return walk(step, jnp.zeros_like(dY[:, 0]), (jnp.zeros_like(dY),), not reverse, X, Y, dY)[1][0]


def by_scan(slopes: Slopes, nothing: float, reverse: bool, X: Steps, Y: Steps, dY: Steps) -> Steps:
    """By an associative scan over the affine maps r ↦ k r + dy."""

    def compose(one: tuple[Array, Array], two: tuple[Array, Array]) -> tuple[Array, Array]:
        (a, b), (a_, b_) = one, two
        return _times(a_, a), _times(a_, b) + b_

    K, S = slopes(X, _before(Y, nothing, reverse), Y)
    maps = _before(K, 0, not reverse), dY
    return _times(S, jax.lax.associative_scan(compose, maps, reverse=not reverse, axis=1)[1])


def _times(a: Array, b: Array) -> Array:
    """a b; a slope of 0 lets nothing through, not even what has overflowed behind it."""
    return jnp.where(a == 0, 0, a * b)


def _before(A: Steps, first: float, reverse: bool) -> Steps:
    """What stands before each element in the order of the scan; `first` before the first."""
    ends = (0, 1) if reverse else (1, 0)
    longer = jnp.pad(A, ((0, 0), ends, (0, 0)), constant_values=first)
    return longer[:, 1:] if reverse else longer[:, :-1]
