"""What the tests of losses share: many rows of a table as one program, at the edges of a dtype and beside a formula.

A row is (rule, prediction, target, *class_weights), with the rule's options last if it has any.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers import optimized_jit
from precision import Subject, against, cotangents, grid

import handgrad as hg
from handgrad import rules

CHANCES = (0.0, 1.0, 0.5, 0.25, 1 - 2**-7, 2**-20)


def silent(truth: Any) -> Any:
    """A truth in NumPy that has infinities."""

    @functools.wraps(truth)
    def run(*arguments):
        with np.errstate(all="ignore"):
            return truth(*arguments)

    return run


def subject(
    op: str,
    truth: Any,
    inputs: Any,
    *,
    name: str = "",
    outputs: str = "C dA dY",
    numbers: Any = grid,
    moved: Any = (),
    **more: Any,
) -> Subject:
    """A precision.Subject; `inputs` may be targets, each of which stands beside each number of the grid."""

    def pairs(dtype):
        A, Y = against(numbers(dtype), inputs, dtype=dtype)
        return A, Y, cotangents(A.shape, dtype)

    moved = {output: silent(function) for output, function in dict(moved).items()}
    inputs_of = inputs if callable(inputs) else pairs
    return Subject(op, name, tuple(outputs.split()), inputs_of, silent(truth), moved=moved, **more)


def in_dtype(a: Any, dtype: Any) -> np.ndarray:
    """Numbers in a dtype; labels as they are."""
    a = np.asarray(a)
    return a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a


def both(op: str, *arguments: Any, dC: Any = 1.0, **options: Any) -> tuple[Any, ...]:
    """C and the cotangents, multiplied out."""
    forward, backward = getattr(rules, op).with_options(**options)
    C, residuals = forward(*arguments)
    return C, *hg.materialize(backward(residuals, jnp.broadcast_to(jnp.asarray(dC, C.dtype), C.shape)))


def outcomes(rows: Any, dC: Any = 1.0, jit: Any = optimized_jit) -> list[tuple[Any, ...]]:
    """`both` of every row, all as one program; as NumPy arrays, None where a cotangent is None. `jit`: jax.jit where
    rounding is not what is tested."""
    options = [row[-1] if isinstance(row[-1], dict) else {} for row in rows]
    given = [row[1:-1] if isinstance(row[-1], dict) else row[1:] for row in rows]

    @jit
    def run(given):
        return [both(row[0], *of, dC=dC, **kwargs) for row, of, kwargs in zip(rows, given, options, strict=True)]

    return jax.tree.map(np.asarray, run([tuple(None if a is None else np.asarray(a) for a in of) for of in given]))


def cast(row: Any, dtype: Any, *scales: float) -> tuple[Any, ...]:
    """The row in a dtype, its first arguments times these."""
    scales = iter(scales)
    op, *others = row
    return op, *(a if isinstance(a, dict) else in_dtype(next(scales, 1) * np.asarray(a), dtype) for a in others)


def assert_edges(zero_times_infinity: Any = (), weightless: Any = (), far: Any = (), far_targets: bool = False) -> None:
    """Rows at the edges of a dtype.

    Args:
      zero_times_infinity: what is infinite counts 0: C, the prediction's cotangent and the target's are finite, in half
        precision too.
      weightless: cotangents are 0 whatever the numbers are, in an example that only fills up a batch.
      far: predictions (and targets) of 1e±4 in float16 and 1e±30 in float32: each number is that of float64, if it is
        one of the dtype.
    """
    rows = [cast(row, dtype) for row in zero_times_infinity for dtype in (np.float16, np.float32)]
    for row, found in zip(rows, outcomes(rows), strict=True):
        assert all(np.isfinite(a.astype(np.float64)).all() for a in found if a is not None), (row, found)

    rows = [cast(row, np.float32) for row in weightless]
    for row, found in zip(rows, outcomes(rows, dC=0.0), strict=True):
        assert all((d == 0).all() for d in found[1:] if d is not None), (row, found)

    sizes = ((np.float16, 1e4), (np.float16, 1e-4), (np.float32, 1e30), (np.float32, 1e-30))
    rows = [cast(row, dtype, scale, scale if far_targets else 1) for row in far for dtype, scale in sizes]
    exact = outcomes([cast(row, np.float64) for row in rows])
    for row, found, truths in zip(rows, outcomes(rows), exact, strict=True):
        info = jnp.finfo(row[1].dtype)
        for one, truth in zip(jax.tree.leaves(found), jax.tree.leaves(truths), strict=True):
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
