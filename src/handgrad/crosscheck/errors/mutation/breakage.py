"""The ways in which the numbers of one gradient go wrong."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Broken = Iterator[tuple[str, str, np.ndarray]]


class Gradient(NamedTuple):
    """One leaf's right gradients.

    Attributes:
      name: the leaf's.
      G: (draws, *shape) float64 or complex128.
      dtype: the leaf's own.
      X: (*shape) the argument itself.
    """

    name: str
    G: np.ndarray
    dtype: np.dtype
    X: np.ndarray


def is_gradient(array: Any) -> bool:
    """Whether it holds numbers that can be wrong: floating point or complex (of any precision), and not empty."""
    return jnp.issubdtype(array.dtype, jnp.inexact) and array.size > 0


def wide(array: np.ndarray) -> np.ndarray:
    """The array in float64, or complex128."""
    complex_ = jnp.issubdtype(array.dtype, jnp.complexfloating)
    return np.asarray(array).astype(np.complex128 if complex_ else np.float64)


def broken(of: Gradient, batch: int | None, others: Sequence[tuple[str, np.ndarray]], gross: bool) -> Broken:
    """Every way that applies to a leaf: (kind, words, M), M like G unless its kind is another shape or dtype.

    Args:
      of: the leaf.
      batch: examples, along axis 0 of those leaves that have as many rows; or None.
      others: names and gradients (like G) of other leaves of the same shape.
      gross: False leaves out what can't be made small: NaN, infinity, other shapes and dtypes, and factors besides
        2 and ½.
    """
    with np.errstate(all="ignore"):
        yield from _factors(of, batch, gross)
        yield from _numbers(of)
        if np.iscomplexobj(of.G):
            yield from _complex(of.G)
        yield from _elements(of.G, gross)
        yield from _order(of.G)
        if batch is not None and batch > 1 and of.G.shape[1:2] == (batch,):
            yield from _examples(of.G)
        yield from _by_value(of)
        yield from (("another leaf's", f"the gradient of {name}", G) for name, G in others)
        if len(of.G) > 1:
            yield (
                "ignores the cotangent",
                "the first draw's gradient in every draw",
                np.broadcast_to(of.G[:1], of.G.shape),
            )
            yield "stale cotangent", "the gradient of the draw before", np.roll(of.G, 1, axis=0)
        if gross:
            yield from _other_arrays(of, batch)


def _factors(of: Gradient, batch: int | None, gross: bool) -> Broken:
    for factor in (2, 0.5, 3, 10, 0.1, 1.01, -0.5) if gross else (2, 0.5):
        yield "scale", f"× {factor:g}", factor * of.G
    yield "sign", "sign flipped", -of.G
    yield "dropped leaf", "zero", np.zeros_like(of.G)
    if batch is not None and batch > 1:
        yield "batch factor", f"sum instead of mean: × {batch}", batch * of.G
        yield "batch factor", f"mean instead of sum: ÷ {batch}", of.G / batch
    for axis, length in enumerate(of.X.shape if gross else ()):
        if length > 1 and length != batch:
            yield "axis factor", f"÷ {length}, axis {axis}", of.G / length


def _numbers(of: Gradient) -> Broken:
    """Each element for itself, all in the same way."""
    G, largest = of.G, _largest(of.G)
    size = np.abs(G)
    finite = np.isfinite(size)
    median = np.median(size[finite]) if finite.any() else 0.0
    norms = np.sqrt(np.sum(size**2, axis=tuple(range(1, G.ndim)), keepdims=True))
    yield "constant offset", "every element too large by the largest", G + (largest or 1)
    yield "constant offset", "every element too large by a tenth of the largest", G + 0.1 * (largest or 1)
    noise = np.random.default_rng(0).standard_normal(G.shape)
    yield "noise", "noise of a tenth of the largest", G + 0.1 * largest * noise
    yield "noise", "each element × its own factor near 1", G * (1 + 0.1 * noise)
    if not np.iscomplexobj(G):
        yield "absolute value", "absolute value", size
        yield "negative part dropped", "0 where negative", np.maximum(G, 0)
        yield "positive part dropped", "0 where positive", np.minimum(G, 0)
    yield "clipped", "clipped to half the largest", G * np.minimum(1, largest / 2 / np.where(size == 0, 1, size))
    yield "small ones dropped", "0 below the median", np.where(size < median, 0, G)
    yield "large ones dropped", "0 above the median", np.where(size > median, 0, G)
    yield "sign alone", "its sign alone", np.where(size == 0, 0, G / np.where(size == 0, 1, size))
    yield "squared", "squared", G * G
    yield "normalized", "divided by its norm", G / np.where(norms == 0, 1, norms)
    yield "mean removed", "minus its mean", G - np.mean(G, axis=tuple(range(1, G.ndim)), keepdims=True)
    yield "quantized", "rounded to 16 steps", np.round(G / (largest or 1) * 16) / 16 * (largest or 1)
    if of.dtype in (np.float64, np.complex128):
        yield "rounded", "computed in float32", wide(G.astype(np.complex64 if np.iscomplexobj(G) else np.float32))
    elif of.dtype == np.float32:
        yield "rounded", "computed in float16", wide(G.astype(np.float16))


def _complex(G: np.ndarray) -> Broken:
    yield "conjugate", "conjugate missing", G.conj()
    yield "real part alone", "imaginary part dropped", np.real(G) + 0j
    yield "imaginary part alone", "real part dropped", 1j * np.imag(G)
    yield "parts exchanged", "real and imaginary part exchanged", np.imag(G) + 1j * np.real(G)


def _elements(G: np.ndarray, gross: bool) -> Broken:
    """One element, one row, one column."""
    size = np.nan_to_num(np.max(np.abs(G), axis=0), posinf=0.0)
    top = np.unravel_index(np.argmax(size), size.shape)
    last = tuple(length - 1 for length in size.shape)
    largest = _largest(G) or 1

    def at(index: tuple[Any, ...], change: Any) -> np.ndarray:
        M = G.copy()
        place = (slice(None), *index)
        M[place] = change(M[place])
        return M

    where = f"element ({', '.join(map(str, top))})"
    yield "one element", f"{where}: zero", at(top, lambda g: 0 * g)
    yield "one element", f"{where}: sign flipped", at(top, lambda g: -g)
    yield (
        "one element",
        f"element ({', '.join(map(str, last))}): too large by the largest",
        at(last, lambda g: g + largest),
    )
    if gross:
        yield "NaN", f"{where}: NaN", at(top, lambda g: np.nan * g)
        yield "infinity", f"{where}: infinite", at(top, lambda g: g + np.inf)
    if G.ndim > 1 and size.size > 1:
        second = np.unravel_index(np.argsort(size, axis=None)[-2], size.shape)
        M = G.copy()
        M[(slice(None), *top)], M[(slice(None), *second)] = G[(slice(None), *second)], G[(slice(None), *top)]
        yield "two elements exchanged", f"elements {tuple(map(int, top))} and {tuple(map(int, second))} exchanged", M
    if G.ndim > 2:
        row, column = int(top[0]), int(top[-1])
        yield "one row", f"row {row}: zero", at((row,), lambda g: 0 * g)
        yield "one row", f"row {row}: × 2", at((row,), lambda g: 2 * g)
        yield "one column", f"column {column}: zero", at((..., column), lambda g: 0 * g)
        yield "one column", f"column {column}: × 2", at((..., column), lambda g: 2 * g)


def _order(G: np.ndarray) -> Broken:
    """The right numbers in the wrong places, or some places alone. Axis 0 is the draw."""
    for axis in sorted({1, G.ndim - 1} if G.ndim > 1 else ()):
        if G.shape[axis] > 1:
            yield "off by one", f"rolled by one along axis {axis - 1}", np.roll(G, 1, axis)
            yield "reversed", f"axis {axis - 1} reversed", np.flip(G, axis)
            yield "axis averaged", f"mean along axis {axis - 1}", np.broadcast_to(G.mean(axis, keepdims=True), G.shape)
            yield "accumulated", f"summed up along axis {axis - 1}", np.cumsum(G, axis)
    if G.ndim > 2:
        flat = G.reshape(len(G), -1)
        yield "elements reversed", "all elements in reversed order", flat[:, ::-1].reshape(G.shape)
        yield "column-major", "column-major order", np.stack([g.T.reshape(g.shape) for g in G])
        if G.shape[-1] > 1:
            triangle = np.triu(np.ones(G.shape[-2:]))
            yield "upper triangle alone", "0 below the diagonal", G * triangle
            yield "diagonal alone", "0 off the diagonal", G * np.eye(*G.shape[-2:])
    for one in range(1, G.ndim - 1):
        if G.shape[one] == G.shape[one + 1] > 1:
            yield "transposed", f"axes {one - 1} and {one} exchanged", np.swapaxes(G, one, one + 1)


def _examples(G: np.ndarray) -> Broken:
    """Rows that belong to examples: axis 1."""
    examples = G.shape[1]
    first = np.zeros_like(G)
    first[:, 0] = G[:, 0]
    most = G.copy()
    most[:, -1] = 0
    yield "first example alone", "only example 0", first
    yield "last example dropped", f"example {examples - 1}: zero", most
    # Moved by any number but 0: every example is wrong, which a random order doesn't make sure of.
    order = np.random.default_rng(0).permutation(examples)
    places = np.empty_like(order)
    places[order] = np.roll(order, 1)
    yield "examples permuted", "examples permuted", G[:, places]
    yield "first example for all", "example 0 in place of each", np.broadcast_to(G[:, :1], G.shape)
    yield "summed over examples", "the sum over examples for each", np.broadcast_to(G.sum(1, keepdims=True), G.shape)


def _by_value(of: Gradient) -> Broken:
    """Wrong where the argument is negative, large, ...: the wrong branch."""
    G, X = of.G, of.X
    if X.shape != G.shape[1:] or not is_gradient(X):
        return
    X = wide(X)
    yield "times the argument", "times the argument", G * X
    share = 0.1 * (_largest(G) or 1) / (_largest(X) or 1)
    yield "argument added", "a tenth of the argument added", G + share * X
    if np.iscomplexobj(X):
        return
    for words, mask in (("x < 0", X < 0), ("x > 0", X > 0), ("x = 0", X == 0), ("|x| > 1", np.abs(X) > 1)):
        if mask.any() and not mask.all():
            yield "wrong branch", f"zero where {words}", np.where(mask, 0, G)
            yield "wrong branch", f"× 2 where {words}", np.where(mask, 2 * G, G)


def _other_arrays(of: Gradient, batch: int | None) -> Broken:
    """Another shape or dtype."""
    G = of.G
    if batch is not None and batch > 1 and G.shape[1:2] != (batch,):
        shape = (len(G), batch, *G.shape[1:])
        words = f"misses the sum over the batch: shape {shape[1:]} for {G.shape[1:]}"
        yield "missing broadcast reduction", words, np.broadcast_to(G[:, None] / batch, shape)
    narrow = {"float64": np.float32, "complex128": np.complex64, "float32": np.float16}.get(of.dtype.name)
    if narrow is not None:
        yield "dtype", f"dtype {np.dtype(narrow).name} where {of.dtype.name} came in", G.astype(narrow)


def _largest(G: np.ndarray) -> float:
    return float(np.max(np.abs(G), initial=0.0, where=np.isfinite(G)))
