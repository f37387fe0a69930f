"""A gradient broken on purpose: the negative control of a check. A check that passes a mutant is too blunt."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors.catalogue import CATALOGUE
from handgrad.crosscheck.errors.gradient import Gradient, argument, is_gradient, wide
from handgrad.crosscheck.report.report import Control

Cotangents = list[list[np.ndarray]]

# Two orders of the same few operations differ by this many unit roundoffs of the largest number, and no more.
ROUNDOFFS = 16

# A right gradient may be off by as many as this: what is less than that isn't a gross error. (It matters for bfloat16,
# where it is an eighth.)
GROSS_ROUNDOFFS = 64


class Mutant(NamedTuple):
    """A gradient with one thing wrong.

    Attributes:
      kind: what sort of error, as "scale" or "dropped term".
      leaf: the name of the one leaf that is wrong, "" where several may be.
      description: the error in full, as "W: 2 × too large": of a gross error, what a diagnosis says of it.
      cotangents: [draw][wanted leaf].
      equivalent: whether the mutant is known to compute the same numbers as the gradient it was made from.
    """

    kind: str
    leaf: str
    description: str
    cotangents: Cotangents
    equivalent: bool = False


def output_mutants(
    cotangents: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    values: Sequence[np.ndarray],
    sizes: Mapping[str, int],
    relative: float | None = None,
) -> Iterator[Mutant]:
    """The right cotangents with one leaf (now and then several) put wrong, by each error of the catalogue.

    The same cotangents give the same mutants. Leaves without elements, and of integers, are left alone. Arithmetic is
    in float64 or complex128; mutants come in the leaf's own dtype.

    Args:
      cotangents: [draw][leaf], right ones: floating point or complex, of any precision.
      names: of the leaves.
      values: the arguments whose cotangents they are, of the same shapes.
      sizes: {"batch": 32, "n_out": 7}: what a factor may be. Leaves with as many rows as the batch are taken to hold
        one row of each example.
      relative: None for gross errors (a mutant that turns out to be wrong by between 16 and 64 unit roundoffs of the
        leaf's largest number is then left out). A number for the same errors made small: the mutant M of a gradient G
        is replaced by G + t (M − G), so that the largest error is `relative` × the leaf's largest |gradient| over all
        draws. Errors that can't be small (NaN, another shape or dtype) are then left out.
    Raises:
      ValueError: not as many names or values as leaves.
    """
    gradients = _gradients(cotangents, names, values, sizes)
    small = "" if relative is None else f", by {relative:g}"

    def replaced(changed: dict[int, np.ndarray]) -> Cotangents:
        return [
            [changed[position][draw] if position in changed else leaf for position, leaf in enumerate(leaves)]
            for draw, leaves in enumerate(cotangents)
        ]

    for position, of in gradients.items():
        seen: set[str] = set()
        for kind, words, M in _broken(of):
            blended = _blend(of.g, M, relative)
            if blended is None or (relative is None and _neither(of, blended)):
                continue
            if words not in seen:
                seen.add(words)
                dtype = M.dtype if kind == "dtype" else of.dtype
                yield Mutant(kind, of.name, f"{of.name}: {words}{small}", replaced({position: _cast(blended, dtype)}))
    yield from _of_several(gradients, relative, replaced)


def _gradients(
    cotangents: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    values: Sequence[np.ndarray],
    sizes: Mapping[str, int],
) -> dict[int, Gradient]:
    """The leaves with numbers that can be wrong, by position; each knows one of those after it of the same shape."""
    if any(len(leaves) != len(names) for leaves in cotangents):
        raise ValueError(f"{len(names)} names for {[len(leaves) for leaves in cotangents]} leaves")
    found: dict[int, Gradient] = {}
    for i, (name, value) in reversed(list(enumerate(zip(names, values, strict=True)))):
        draws = [leaves[i] for leaves in cotangents]
        if draws and is_gradient(draws[0]):
            g, dtype = wide(np.stack(draws)), draws[0].dtype
            alike = [of for of in reversed(found.values()) if (of.g.shape, of.dtype) == (g.shape, dtype)]
            others = {of.name: of.g for of in alike[:1]}
            found[i] = Gradient(name, g, dtype, argument(value, g.shape[1:]), sizes, others)
    return dict(reversed(found.items()))


def _broken(of: Gradient) -> Iterator[tuple[str, str, np.ndarray]]:
    for error in CATALOGUE:
        with np.errstate(all="ignore"):
            made = list(error.make(of))
        yield from ((error.kind, words, M) for words, M in made)


def _of_several(
    gradients: dict[int, Gradient], relative: float | None, replaced: Callable[[dict[int, np.ndarray]], Cotangents]
) -> Iterator[Mutant]:
    """Mutants with more than one wrong leaf."""
    suffix = "" if relative is None else f", by {relative:g}"

    def mutant(kind: str, words: str, wrong: dict[int, np.ndarray]) -> Mutant:
        blended = {i: _blend(gradients[i].g, M, relative) for i, M in wrong.items()}
        changed = {i: _cast(M, gradients[i].dtype) for i, M in blended.items() if M is not None}
        return Mutant(kind, "", words + suffix, replaced(changed))

    for (i, one), (j, two) in pairwise(gradients.items()):
        if one.g.shape == two.g.shape and one.dtype == two.dtype:
            yield mutant("swapped leaves", f"{one.name} and {two.name} exchanged", {i: two.g, j: one.g})
    if len(gradients) > 1:
        yield mutant("scale of every leaf", "every leaf: × 2", {i: 2 * of.g for i, of in gradients.items()})
        yield mutant("sign of every leaf", "every leaf: sign flipped", {i: -of.g for i, of in gradients.items()})


def _blend(G: np.ndarray, M: np.ndarray, relative: float | None) -> np.ndarray | None:
    """M, or as much of it as makes an error of `relative`; None where that can't be."""
    if relative is None:
        return M
    finite = np.isfinite(G)
    if M.shape != G.shape or M.dtype != G.dtype or not np.isfinite(M[finite]).all():
        return None
    error = np.zeros_like(G)
    error[finite] = M[finite] - G[finite]
    largest = np.max(np.abs(error), initial=0.0)
    if largest == 0:
        return G
    return G + error / largest * (relative * np.max(np.abs(G[finite]), initial=0.0))


@np.errstate(all="ignore")
def _neither(of: Gradient, M: np.ndarray) -> bool:
    """Whether M is neither the same as the gradient nor so wrong that any check must see it."""
    if M.shape != of.g.shape:
        return False
    roundoff = _roundoff(of.dtype)
    error = np.where(np.isfinite(of.size), np.abs(M - of.g), 0)
    if not np.max(error) < GROSS_ROUNDOFFS * roundoff * of.largest:
        return False
    axes = tuple(range(1, of.g.ndim))
    size = np.max(of.size, axis=axes, initial=0.0, where=np.isfinite(of.size))
    return bool(np.any(np.max(error, axis=axes) > ROUNDOFFS * roundoff * size))


def _roundoff(dtype: np.dtype) -> float:
    return float(jnp.finfo(dtype).eps) / 2


@np.errstate(all="ignore")  # too large for the dtype is infinite, which is wrong enough
def _cast(M: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return M.astype(dtype)


def control(
    judge: Callable[[Cotangents], bool], cotangents: Sequence[Sequence[np.ndarray]], mutants: Iterable[Mutant]
) -> Control:
    """Put every mutant before the judge, and count.

    Args:
      judge: [draw][leaf] -> whether the check fails these cotangents.
      cotangents: the gradient under test itself, [draw][leaf].
      mutants: each is equivalent where it says so, or where it equals `cotangents` within 16 unit roundoffs of each
        leaf's largest number, in every draw and leaf; those aren't judged.
    """
    killed: dict[str, int] = {}
    survived: list[str] = []
    equivalent = 0
    for mutant in mutants:
        if mutant.equivalent or same(mutant.cotangents, cotangents):
            equivalent += 1
        elif judge(mutant.cotangents):
            killed[mutant.kind] = killed.get(mutant.kind, 0) + 1
        else:
            survived.append(mutant.description)
    return Control(killed, tuple(survived), equivalent)


def same(one: Sequence[Sequence[np.ndarray]], other: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether two sets of cotangents, [draw][leaf], are equal within 16 unit roundoffs of each leaf's largest."""
    pairs = zip(one, other, strict=True)
    return all(same_array(a, b) for leaves in pairs for a, b in zip(*leaves, strict=True))


def same_array(array: Any, reference: Any) -> bool:
    """Whether two arrays of one shape and dtype are equal within 16 unit roundoffs of the reference's largest number.

    What isn't finite must be the same in the same places.
    """
    if array is reference:
        return True
    if array.shape != reference.shape or array.dtype != reference.dtype:
        return False
    if not is_gradient(reference):
        return np.array_equal(array, reference)
    A, R = wide(array), wide(reference)
    finite = np.isfinite(R)
    if not np.array_equal(A[~finite], R[~finite], equal_nan=True) or not np.isfinite(A[finite]).all():
        return False
    largest = np.max(np.abs(R[finite]), initial=0.0)
    tolerance = ROUNDOFFS * _roundoff(reference.dtype) * largest
    return bool(np.max(np.abs(A[finite] - R[finite]), initial=0.0) <= tolerance)
