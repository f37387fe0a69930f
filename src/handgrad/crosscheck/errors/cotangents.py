"""Errors in the use of the cotangent: it is ignored, or in part, or enters other than linearly."""

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors.error import Error, instead
from handgrad.crosscheck.errors.fit import EXACT, VAGUE, Fit, Found
from handgrad.crosscheck.errors.gradient import Gradient, Made, wide
from handgrad.crosscheck.errors.wording import shortest

MOST = 2**22  # numbers in a gradient, above which no other is computed


def _for(of: Gradient, change: Callable[[np.ndarray], np.ndarray], only: int | None = None) -> np.ndarray:
    """The gradients for changed cotangents: of every output, or of one."""
    rows = []
    for draw in of.dYs:
        changed = list(draw)
        for i, dY in enumerate(draw):
            if jnp.issubdtype(dY.dtype, jnp.inexact) and only in (None, i):
                changed[i] = np.asarray(change(wide(dY))).astype(dY.dtype)
        assert of.one is not None
        rows.append(wide(of.one(changed)))
    return np.stack(rows)


def _conjugates(of: Gradient) -> Iterator[Made]:
    if of.one and of.dYs and of.g.size <= MOST and any(np.iscomplexobj(dY) for dY in of.dYs[0]):
        conjugate = _for(of, np.conj)
        if of.complex:
            yield "conjugate missing: Jᴴ dY instead of Jᵀ dY", conjugate.conj()
        yield "conj(dY) instead of dY", conjugate


def _changed(of: Gradient) -> Iterator[Made]:
    outputs = [i for i, dY in enumerate(of.dYs[0]) if jnp.issubdtype(dY.dtype, jnp.inexact)] if of.dYs else []
    if not of.one or not outputs or len(of.g) < 2:
        return
    yield "ignores the cotangent: right for dY = 1", _for(of, np.ones_like)
    yield "dY² instead of dY", _for(of, np.square)
    yield "|dY| instead of dY", _for(of, np.abs)
    yield "sign(dY) instead of dY", _for(of, np.sign)
    yield "mean(dY) instead of dY", _for(of, lambda dY: np.full_like(dY, dY.mean() if dY.size else 0))
    for i in outputs if len(outputs) > 1 else ():
        yield f"ignores the cotangent of output {i}", _for(of, np.zeros_like, i)


def _is_changed(fit: Fit) -> Iterator[Found]:
    yield from () if fit.large else fit.instead(_changed(fit.of))


def _several(of: Gradient) -> bool:
    return len(of.g) > 1


def _constant(of: Gradient) -> Iterator[Made]:
    if _several(of):
        yield "the same for every cotangent", np.broadcast_to(of.g[:1], of.g.shape)


def _is_constant(fit: Fit) -> Iterator[Found]:
    h = fit.h
    if len(h) > 1 and np.abs(h - h[:1]).max() <= fit.tolerance and fit.off.any():
        same = h[0].size > 1 and np.abs(h - h.flat[0]).max() <= fit.tolerance
        words = f"{h.flat[0] * fit.scale:.4g} in every element" if same else "the same for every cotangent"
        yield Found(EXACT, words)


def _normalized(of: Gradient) -> Iterator[Made]:
    norms = np.sqrt(np.sum(of.size**2, axis=tuple(range(1, of.g.ndim)), keepdims=True))
    yield "scaled to norm 1", of.g / np.where(norms == 0, 1, norms)


def _is_normalized(fit: Fit) -> Iterator[Found]:
    """The right gradient in each draw but for its length."""
    gs, hs = (a.reshape(len(a), -1) for a in (fit.g, fit.h))
    if len(gs) < 2 or gs.shape[1] < 3:
        return
    lengths = (np.conj(gs) * hs).sum(1) / np.maximum((np.abs(gs) ** 2).sum(1), 1e-300)
    c = lengths.reshape(-1, *[1] * len(fit.of.shape))
    if not fit.explained(fit.h - c * fit.g, fit.tolerance * np.maximum(1, np.abs(c)), len(gs)):
        return
    norms = np.linalg.norm(hs, axis=1)
    cut = np.abs(lengths - 1) > 1e-3
    if cut.any() and np.ptp(norms[cut]) <= 1e-3 * norms.max() and norms[~cut].max(initial=0) <= norms[cut].max():
        norm = shortest(float(norms[cut].mean()) * fit.scale, 1e-3 * float(norms.max()) * fit.scale)
        yield Found(EXACT, f"{'scaled' if cut.all() else 'clipped'} to norm {norm}")
    else:
        yield Found(VAGUE, "multiplied by a factor that depends on the cotangent")


COTANGENTS = (
    Error("conjugate of the Jacobian", _conjugates),
    Error("another cotangent", _changed, _is_changed),
    instead(
        "stale cotangent", "the gradient for another draw's cotangent", lambda of: np.roll(of.g, 1, axis=0), _several
    ),
)
NOT_LINEAR = (Error("ignores the cotangent", _constant, _is_constant), Error("normalized", _normalized, _is_normalized))
