"""What a wrong gradient makes of the cotangent: it ignores it, or a part of it, or is not linear in it."""

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors.diagnosis.fits import Evidence, inner, norm, stack, wide
from handgrad.crosscheck.errors.diagnosis.wording import along, factor, shortest, singular

MOST_EXAMPLES = 32  # a gradient for each is asked for

Arrays = list[np.ndarray]
One = Callable[[Arrays], np.ndarray]


def instead(e: Evidence, one: One, dYs: list[Arrays]) -> Iterator[tuple[str, np.ndarray]]:
    """(words, the gradient for another cotangent in each draw), in e's units."""

    def each(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        changed = [
            [np.asarray(change(wide(dY))).astype(dY.dtype) if i in inexact else dY for i, dY in enumerate(draw)]
            for draw in dYs
        ]
        return stack([one(draw) for draw in changed], e.g.dtype) / e.scale

    inexact = [i for i, dY in enumerate(dYs[0]) if jnp.issubdtype(dY.dtype, jnp.inexact)]
    if not inexact:
        return
    for words, change in (
        ("ignores the cotangent: right for dY = 1", np.ones_like),
        ("takes the cotangent's square", np.square),
        ("takes the cotangent's absolute value", np.abs),
        ("takes the cotangent's sign", np.sign),
        ("takes the cotangent's mean", lambda dY: np.full_like(dY, dY.mean() if dY.size else 0)),
    ):
        yield words, each(change)
    if np.iscomplexobj(e.g):
        yield "the cotangent's conjugate missing", each(np.conj)
        yield "conjugate missing: the adjoint's, not the transpose's", np.conj(each(np.conj))
    if len(dYs) > 1:
        yield "the gradient for another draw's cotangent", np.roll(e.g, 1, axis=0)
    for i in inexact if len(inexact) > 1 else ():
        without = [[dY * (j != i) for j, dY in enumerate(draw)] for draw in dYs]
        yield f"ignores the cotangent of output {i}", stack([one(draw) for draw in without], e.g.dtype) / e.scale


def examples(e: Evidence, one: One, dYs: list[Arrays], sizes: dict[str, int]) -> str:
    """ "only example 0: misses the sum over the batch", "misses example 7"; "" where the examples are all right."""
    shapes = [np.shape(dY)[:1] for dY in dYs[0]]
    batch = sizes.get("batch", 0)
    if not 1 < batch <= MOST_EXAMPLES or shapes != [(batch,)] * len(shapes):
        return ""

    def weighted(draw: Arrays, weights: np.ndarray) -> np.ndarray:
        scaled = [dY * weights.reshape(-1, *[1] * (dY.ndim - 1)).astype(dY.dtype) for dY in draw]
        return np.asarray(one(scaled)).astype(e.g.dtype) / e.scale

    parts = np.stack([weighted(dYs[0], row) for row in np.eye(batch)]).reshape(batch, -1)
    rank = np.linalg.matrix_rank(parts)
    for weights in _weights(parts, e.h[0].ravel(), rank):
        whole = np.stack([weighted(draw, weights) for draw in dYs])
        if e.explained(e.h - whole, e.tolerance * max(1.0, np.abs(weights).max()), 0):
            return _say(weights, sizes)
    return ""


def _weights(parts: np.ndarray, mine: np.ndarray, rank: int) -> Iterator[np.ndarray]:
    """How each example may have been weighted, one at a time first: less to be wrong about."""
    batch = len(parts)
    total = parts.sum(0)
    for i in range(batch):
        size = float(inner(parts[i], parts[i]).real)
        for target, start, sign in ((mine, 0.0, 1.0), (mine - total, 1.0, 1.0)):
            c = float(inner(parts[i], target).real) / size * sign if size else 0.0
            if norm(target - c * parts[i]) < 1e-2 * norm(target):
                weights = np.full(batch, start)
                weights[i] += round(c, 9) if abs(c - round(c)) < 1e-9 else c
                yield weights
    if rank == batch < mine.size * (2 if np.iscomplexobj(mine) else 1):
        weights = np.linalg.lstsq(parts.T, mine, rcond=None)[0]
        rounded = np.where(np.abs(weights - np.rint(weights.real)) < 1e-3, np.rint(weights.real), weights.real)
        yield from (rounded, weights.real)


def _say(weights: np.ndarray, sizes: dict[str, int]) -> str:
    slack = 1e-6
    batch = len(weights)

    def listed(where: np.ndarray) -> str:
        return along(0, 2, True, np.flatnonzero(where).tolist())

    zero = np.abs(weights) <= slack
    kept = weights[~zero]
    if zero.any() and len(kept):
        scale = (
            factor(complex(kept.mean()), slack, sizes) if np.ptp(kept) <= slack else "each weighted by its own number"
        )
        if len(kept) <= batch / 2:
            words = f"only {listed(~zero)}: misses the sum over the batch"
        else:
            words = f"misses {listed(zero)}"
        return " and ".join(filter(None, [scale, words]))
    usual = float(np.median(weights))
    other = np.abs(weights - usual) > 1e-12
    if abs(usual - 1) <= 1e-12 and 0 < np.count_nonzero(other) <= batch / 2 and np.ptp(weights[other]) <= slack:
        return f"{listed(other)}: {shortest(float(weights[other].mean()), 1e-6)} × its part of the sum"
    return "examples weighted: " + ", ".join(shortest(float(w), 1e-3) for w in weights[:8]) + ", …" * (batch > 8)


def ignored(e: Evidence) -> str:
    """Whether it is the same in every draw, or the right one but for its length."""
    draws = len(e.g)
    if draws < 2 or e.g[0].size < 1:
        return ""
    if np.abs(e.h - e.h[:1]).max() <= e.tolerance and e.off.any():
        same = e.h[0].size > 1 and np.abs(e.h - e.h.flat[0]).max() <= e.tolerance
        return f"{e.h.flat[0] * e.scale:.4g} in every element" if same else "the same for every cotangent"
    gs, hs = e.g.reshape(draws, -1), e.h.reshape(draws, -1)
    if gs.shape[1] < 3:
        return ""
    lengths = (np.conj(gs) * hs).sum(1) / np.maximum((np.abs(gs) ** 2).sum(1), 1e-300)
    t = lengths[:, None] * gs
    if not e.explained(hs - t, e.tolerance * max(1.0, float(np.abs(lengths).max())), draws):
        return ""
    norms = np.linalg.norm(hs, axis=1)
    cut = np.abs(lengths - 1) > 1e-3
    if cut.any() and np.ptp(norms[cut]) <= 1e-3 * norms.max() and norms[~cut].max(initial=0) <= norms[cut].max():
        return f"{'scaled' if cut.all() else 'clipped'} to norm {norms[cut].mean() * e.scale:.3g}"
    return "off by a factor that changes with the cotangent"


def own_factors(e: Evidence, batch: bool) -> str:
    """Whether each slice, or each element, is off by a factor of its own that no cotangent changes."""
    g, h = e.g, e.h
    if g[0].size < 3:
        return ""
    axes = [axis for axis in range(1, g.ndim) if g.shape[axis] > 1 and g.ndim > 2]
    for kept in [*((axis,) for axis in axes), tuple(range(1, g.ndim))]:
        over = tuple(axis for axis in range(g.ndim) if axis not in kept)
        gg = (np.abs(g) ** 2).sum(over, keepdims=True)
        c = (np.conj(g) * h).sum(over, keepdims=True) / np.where(gg > 0, gg, 1)
        seen = gg > (1e3 * e.tolerance) ** 2
        if not e.explained(h - c * g, e.tolerance * max(1.0, float(np.abs(c).max())), c.size) or not seen.any():
            continue
        sizes = c[seen].real if np.abs(c.imag).max() <= 1e-9 else np.abs(c[seen])
        what = "element" if len(kept) > 1 or g.ndim == 2 else singular(kept[0] - 1, g.ndim - 1, batch)
        return f"each {what} off by a factor of its own, {sizes.min():.3g} to {sizes.max():.3g}"
    return ""
