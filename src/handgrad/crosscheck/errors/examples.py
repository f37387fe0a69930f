"""Errors in a sum over examples: some are missing, or weighted."""

from collections.abc import Iterator, Mapping

import numpy as np

from handgrad.crosscheck.errors.error import Error
from handgrad.crosscheck.errors.fit import EXACT, Fit, Found, inner, norm
from handgrad.crosscheck.errors.gradient import Arrays, Gradient, Made, wide
from handgrad.crosscheck.errors.wording import along, factor, shortest

MOST_EXAMPLES = 32  # a gradient is computed for each


def _examples(of: Gradient) -> int:
    """How many examples the leaf sums over; 0 where it has one row for each, or where their number isn't known."""
    batch = of.sizes.get("batch", 0)
    known = of.one and of.dYs and all(np.shape(dY)[:1] == (batch,) for dY in of.dYs[0])
    return batch if known and not of.batch and 1 < batch <= MOST_EXAMPLES else 0


def _weighted(of: Gradient, draw: Arrays, weights: np.ndarray) -> np.ndarray:
    assert of.one is not None
    scaled = [dY * weights.reshape(-1, *[1] * (dY.ndim - 1)).astype(dY.dtype) for dY in draw]
    return wide(of.one(scaled)).astype(of.g.dtype)


def _some(of: Gradient) -> Iterator[Made]:
    batch = _examples(of)
    for i in (0, batch - 1) if batch else ():
        for weights in (np.eye(batch)[i], 1 - np.eye(batch)[i]):
            yield _say(weights, of.sizes), np.stack([_weighted(of, draw, weights) for draw in of.dYs])


def _is_weighted(fit: Fit) -> Iterator[Found]:
    batch = _examples(fit.of)
    if not batch or fit.large:
        return
    parts = np.stack([_weighted(fit.of, fit.of.dYs[0], row) for row in np.eye(batch)]).reshape(batch, -1) / fit.scale
    for weights in _weights(parts, fit.h[0].ravel()):
        whole = np.stack([_weighted(fit.of, draw, weights) for draw in fit.of.dYs]) / fit.scale
        if fit.explained(fit.h - whole, fit.tolerance * max(1.0, np.abs(weights).max()), 0):
            yield Found(EXACT, _say(weights, fit.of.sizes))
            return


def _weights(parts: np.ndarray, mine: np.ndarray) -> Iterator[np.ndarray]:
    """How each example may have been weighted; one at a time first, which has less to be wrong about."""
    batch = len(parts)
    total = parts.sum(0)
    for part, start in zip(parts, np.eye(batch), strict=True):
        size = float(inner(part, part).real)
        for target, others in ((mine, 0.0), (mine - total, 1.0)):
            c = float(inner(part, target).real) / size if size else 0.0
            if norm(target - c * part) < 1e-2 * norm(target):
                yield others + start * (round(c, 9) if abs(c - round(c)) < 1e-9 else c)
    if np.linalg.matrix_rank(parts) == batch < mine.size * (2 if np.iscomplexobj(mine) else 1):
        weights = np.linalg.lstsq(parts.T, mine, rcond=None)[0]
        rounded = np.where(np.abs(weights - np.rint(weights.real)) < 1e-3, np.rint(weights.real), weights.real)
        yield from (rounded, weights.real)


def _say(weights: np.ndarray, sizes: Mapping[str, int]) -> str:
    slack, batch = 1e-6, len(weights)

    def listed(where: np.ndarray) -> str:
        return along(0, 2, True, np.flatnonzero(where).tolist())

    zero = np.abs(weights) <= slack
    kept = weights[~zero]
    if zero.any() and len(kept):
        scale = factor(complex(kept.mean()), slack, sizes) if np.ptp(kept) <= slack else "each weighted differently"
        few = len(kept) <= batch / 2
        words = f"only {listed(~zero)}: misses the sum over the batch" if few else f"misses {listed(zero)}"
        return " and ".join(filter(None, [scale, words]))
    usual = float(np.median(weights))
    other = np.abs(weights - usual) > 1e-12
    if abs(usual - 1) <= 1e-12 and 0 < np.count_nonzero(other) <= batch / 2 and np.ptp(weights[other]) <= slack:
        return f"{listed(other)} weighted {shortest(float(weights[other].mean()), 1e-6)} in the sum over the batch"
    return "examples weighted " + ", ".join(shortest(float(w), 1e-3) for w in weights[:8]) + ", …" * (batch > 8)


EXAMPLES = (Error("examples of a sum", _some, _is_weighted),)
