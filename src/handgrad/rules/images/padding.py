"""pad: margins around space, of a constant or of what is inside."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_array, check_choice, check_cotangent, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules.images._windows import is_integer, is_pairs

__all__ = ["PadResiduals", "pad", "pad_backward", "pad_forward"]

Margins = int | Sequence[tuple[int, int]]
Mode = Literal["constant", "edge", "reflect", "symmetric", "wrap"]
MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


class PadResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte. A copy is linear: its backward pass needs nothing else."""

    outline: Float[Array, "batch 0 *space n"]


class Run(NamedTuple):
    """Neighbors in a margin that copy neighbors of X, `size` of them from the element `start` on: forward (step 1),
    backward (−1), or one element again and again (0)."""

    start: int
    size: int
    step: int


def pad_forward(
    X: Float[Array, "batch *space n"], *, padding: Margins, mode: Mode = "constant", value: float = 0.0
) -> tuple[Float[Array, "batch *padded n"], PadResiduals]:
    """y_i = x_{j(i)}, axis by axis: inside j(i) = i − p, and in the margins the mode's; with a constant there is none.

    Args:
      X: one, two, three … axes of space, or of tokens.
      padding: an integer for every margin, or a pair (before, behind) for each axis of space.
      mode: as jnp.pad's: "constant" (`value`), "edge" (the last element again; PyTorch's replicate), "reflect" (a
        mirror at the last element's center), "symmetric" (a mirror behind it), "wrap" (from the other end; circular).
      value: of the constant.
    Derivation: docs/derivations/images/padding.md
    """
    where = "pad_forward"
    pairs = _check_padding(where, X, padding, mode)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"{where}: value must be a number, got {value!r}")
    if mode == "constant":
        margins = [(0, 0, 0), *((*pair, 0) for pair in pairs), (0, 0, 0)]
        return jax.lax.pad(X, jnp.asarray(value, X.dtype), margins), PadResiduals(outline(X))
    Y = X
    for axis, (before, behind) in enumerate(pairs, start=1):
        n = X.shape[axis]
        margins = [[_copied(Y, axis, run) for run in _runs(n, at, mode)] for at in _places(n, before, behind)]
        Y = jnp.concatenate([*margins[0], Y, *margins[1]], axis)
    return Y, PadResiduals(outline(X))


def pad_backward(
    residuals: PadResiduals,
    dY: Float[Array, "batch *padded n"],
    *,
    padding: Margins,
    mode: Mode = "constant",
    value: float = 0.0,
) -> tuple[Float[Array, "batch *space n"]]:
    """Pull dY back through y_i = x_{j(i)}.

        dx_j = Σ dy_i    over the elements i that copy x_j

    Derivation: docs/derivations/images/padding.md
    """
    where = "pad_backward"
    X = outlined(*check_residuals(where, residuals, PadResiduals))
    pairs = _check_padding(where, X, padding, mode)
    space = tuple(n + sum(pair) for n, pair in zip(X.shape[1:-1], pairs, strict=True))
    check_cotangent(where, dY, (X.shape[0], *space, X.shape[-1]), X.dtype)
    dX = dY.astype(accumulator(dY))
    for axis, (before, behind) in reversed([*enumerate(pairs, start=1)]):
        n, folded = X.shape[axis], dX
        dX = jax.lax.slice_in_dim(folded, before, before + n, axis=axis)
        for first, places in zip((0, before + n), _places(n, before, behind), strict=True):
            for run in _runs(n, places, mode) if mode != "constant" else ():
                dX += _folded(jax.lax.slice_in_dim(folded, first, first + run.size, axis=axis), axis, run, n)
                first += run.size
    return (dX.astype(X.dtype),)


pad = Rule(pad_forward, pad_backward)


def _places(n: int, before: int, behind: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the elements of the two margins stand, counted from X's first."""
    return np.arange(-before, 0), np.arange(n, n + behind)


def _runs(n: int, places: np.ndarray, mode: Mode) -> list[Run]:
    """What the elements at these places copy, in runs."""
    if mode == "edge":
        return [Run(int(np.clip(places[0], 0, n - 1)), len(places), 0)] if len(places) else []
    period = {"wrap": n, "symmetric": 2 * n, "reflect": max(2 * (n - 1), 1)}[mode]
    k = places % period
    mirrored = {"wrap": k, "symmetric": 2 * n - 1 - k, "reflect": period - k}[mode]
    copied = np.minimum(k, mirrored)
    runs = list[Run]()
    for j in copied.tolist():
        if runs and j == _next(runs[-1]) and runs[-1].size > 1:
            runs[-1] = runs[-1]._replace(size=runs[-1].size + 1)
        elif runs and runs[-1].size == 1 and abs(j - runs[-1].start) == 1:
            runs[-1] = Run(runs[-1].start, 2, j - runs[-1].start)
        else:
            runs.append(Run(j, 1, 1))
    return runs


def _next(run: Run) -> int:
    return run.start + run.step * run.size


def _copied(X: Array, axis: int, run: Run) -> Array:
    """The elements of X that a run copies, in its order."""
    last = _next(run) - run.step if run.step else run.start
    part = jax.lax.slice_in_dim(X, min(run.start, last), max(run.start, last) + 1, axis=axis)
    if run.step == 0:
        return jnp.broadcast_to(part, (*X.shape[:axis], run.size, *X.shape[axis + 1 :]))
    return part if run.step == 1 else jnp.flip(part, axis)


def _folded(dY: Array, axis: int, run: Run, n: int) -> Array:
    """The transpose of `_copied`: each element of dY where it was copied from, zeros elsewhere."""
    if run.step == 0:
        dY = jnp.sum(dY, axis, keepdims=True)
    first = run.start if run.step >= 0 else _next(run) + 1
    dY = jnp.flip(dY, axis) if run.step == -1 else dY
    pairs = [(0, 0)] * dY.ndim
    pairs[axis] = (first, n - first - dY.shape[axis])
    return jnp.pad(dY, pairs)


def _check_padding(
    where: str, X: Array | jax.ShapeDtypeStruct, padding: Margins, mode: Mode
) -> tuple[tuple[int, int], ...]:
    """A pair of margins for each of X's axes of space."""
    check_array(where, "X", X)
    axes = len(X.shape) - 2
    if axes < 1:
        raise InputError(f"{where}: X must have shape (batch, *space, n), got {describe(X)}")
    check_choice(where, "mode", mode, MODES)
    pairs = ((padding, padding),) * axes if is_integer(padding) else padding
    if not is_pairs(pairs) or len(pairs) != axes:
        expected = f"an integer, 0 at least, or a pair of them for each of {axes} axes of space"
        raise InputError(f"{where}: padding must be {expected}, got {padding!r}")
    if mode != "constant" and 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have an element to copy, got {describe(X)}")
    return tuple((int(before), int(behind)) for before, behind in pairs)
