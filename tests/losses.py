"""What the tests of losses share: many rows of a table as one program, at the edges of a dtype and beside a formula.

A row is (rule, prediction, target, *class_weights), with the rule's options last if it has any.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from precision import against, cotangents, grid

import handgrad as hg
from handgrad import rules

CHANCES = (0.0, 1.0, 0.5, 0.25, 1 - 2**-7, 2**-20)


def pairs(targets: Any, dtype: Any, numbers: Any = grid) -> tuple[np.ndarray, ...]:
    """Each number of the grid beside each target, and a cotangent: (batch,) each."""
    A, Y = against(numbers(dtype), targets, dtype=dtype)
    return A, Y, cotangents(A.shape, dtype)


def silent(truth: Any) -> Any:
    """A truth in NumPy that has infinities."""

    @functools.wraps(truth)
    def run(*arguments):
        with np.errstate(all="ignore"):
            return truth(*arguments)

    return run


def in_dtype(a: Any, dtype: Any) -> np.ndarray:
    """Numbers in a dtype; labels as they are."""
    a = np.asarray(a)
    return a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a


def both(op: str, *arguments: Any, dC: Any = 1.0, **options: Any) -> tuple[Any, ...]:
    """C and the cotangents, multiplied out."""
    forward, backward = getattr(rules, op).with_options(**options)
    C, residuals = forward(*arguments)
    return C, *hg.materialize(backward(residuals, jnp.broadcast_to(jnp.asarray(dC, C.dtype), C.shape)))


def outcomes(rows: Any, dC: Any = 1.0) -> list[tuple[Any, ...]]:
    """`both` of every row, all as one program; as NumPy arrays, None where a cotangent is None."""
    options = [row[-1] if isinstance(row[-1], dict) else {} for row in rows]
    given = [row[1:-1] if isinstance(row[-1], dict) else row[1:] for row in rows]

    @jax.jit
    def run(given):
        return [both(row[0], *of, dC=dC, **kwargs) for row, of, kwargs in zip(rows, given, options, strict=True)]

    return jax.tree.map(np.asarray, run([tuple(None if a is None else np.asarray(a) for a in of) for of in given]))


def cast(row: Any, dtype: Any, *scales: float) -> tuple[Any, ...]:
    """The row in a dtype, its first arguments times these."""
    scales = iter(scales)
    op, *others = row
    return op, *(a if isinstance(a, dict) else in_dtype(next(scales, 1) * np.asarray(a), dtype) for a in others)


def assert_finite(*rows: Any) -> None:
    """What is infinite counts 0: C, the prediction's cotangent and the target's are finite, in half precision too."""
    rows = [cast(row, dtype) for row in rows for dtype in (np.float16, np.float32)]
    for row, found in zip(rows, outcomes(rows), strict=True):
        assert all(np.isfinite(a.astype(np.float64)).all() for a in found if a is not None), (row, found)


def assert_nothing_from_a_weight_of_zero(*rows: Any) -> None:
    """Cotangents are 0 whatever the numbers are, in an example that only fills up a batch."""
    rows = [cast(row, np.float32) for row in rows]
    for row, found in zip(rows, outcomes(rows, dC=0.0), strict=True):
        assert all((d == 0).all() for d in found[1:] if d is not None), (row, found)


def assert_finite_where_it_fits(*rows: Any, targets: bool = False) -> None:
    """Predictions (and targets) of 1e±4 in float16 and 1e±30 in float32: each number is that of float64, if it is one
    of the dtype."""
    sizes = ((np.float16, 1e4), (np.float16, 1e-4), (np.float32, 1e30), (np.float32, 1e-30))
    rows = [cast(row, dtype, scale, scale if targets else 1) for row in rows for dtype, scale in sizes]
    found = outcomes([*rows, *(cast(row, np.float64) for row in rows)])
    for row, ours, exact in zip(rows, found, found[len(rows) :], strict=False):
        info = jnp.finfo(row[1].dtype)
        for one, truth in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
            one = one.astype(np.float64)
            fits = np.abs(truth) < float(info.max)
            assert (np.isfinite(one) == fits).all(), (row, one, truth)
            bar = 8 * float(info.eps) * np.abs(truth) + 64 * float(info.smallest_subnormal)
            assert (np.abs(one - truth) <= bar)[fits].all(), (row, one, truth)


def assert_rounded_once(op: str, prediction: float, target: float, size: int = 10_001) -> None:
    """A long sum in half precision: `size` losses of 1 or 2 in float16, which counts in steps of 8 there."""
    a, y = (np.full((1, size), value, np.float16) for value in (prediction, target))
    (C, *_), (exact, *_) = outcomes([(op, *(x.astype(dtype) for x in (a, y))) for dtype in (np.float16, np.float64)])
    assert C[0] == exact.astype(np.float16)[0]


def assert_losses(*rows: Any) -> None:
    """A layer's loss and its gradient are those of a formula for any cotangent, and each example's what it has alone.

    Args:
      *rows: (a loss of layers/, the formula, prediction, target) of 4 examples, all as one program; the formula gives
        each element's part of the loss, or each token's.
    """
    dloss = np.array([1.0, -2.0, 0.0, 0.25])

    def of_row(loss, formula, prediction, target):
        def expected(prediction):
            C = formula(prediction, target)
            return C.reshape(len(C), -1).sum(1)

        losses, residuals = loss.forward(prediction, target)
        truth, pull = jax.vjp(expected, prediction)
        alone, of_one = loss.forward(prediction[1:2], target[1:2])
        whole = losses, loss.backward(residuals, jnp.asarray(dloss))
        return whole, (truth, *pull(dloss)), (alone, loss.backward(of_one, jnp.asarray(dloss[1:2])))

    @jax.jit
    def run(given):
        return [of_row(loss, formula, *of) for (loss, formula, *_), of in zip(rows, given, strict=True)]

    for whole, truth, alone in jax.tree.map(np.asarray, run([row[2:] for row in rows])):
        assert whole[0].shape == (4,)
        np.testing.assert_allclose(whole[0], truth[0], rtol=1e-12)
        np.testing.assert_allclose(whole[1], truth[1], rtol=1e-12, atol=1e-12 * np.abs(truth[1]).max())
        assert (whole[1][2] == 0).all()
        for one, every in zip(alone, whole, strict=True):
            np.testing.assert_allclose(one, every[1:2], rtol=1e-14)
