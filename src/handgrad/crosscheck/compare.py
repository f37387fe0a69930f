"""Two ways to the same gradient, side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

# A comparison runs once, so compiling it is the whole price: XLA's older code generator for CPUs takes two thirds of
# the time. Where a version of XLA doesn't know the name, its own defaults do. (Optimisation level 0 would be quicker
# still, but XLA's code is then wrong: NaN, or 14 % off, in the autodiff half of one random network in a hundred.)
QUICK_TO_COMPILE: dict[str, bool | str] = {"xla_cpu_use_fusion_emitters": False}


class Comparison(NamedTuple):
    """How far two results are apart where they are furthest.

    Attributes:
      name: what was compared.
      error: the largest difference in any leaf, as a share of the largest number in that leaf of the reference.
      leaf: that leaf's path.
      dtype: that leaf's dtype.
    """

    name: str
    error: float
    leaf: str
    dtype: str


class Job(NamedTuple):
    """A comparison to be made: f(*arguments) against reference(*arguments), pytrees of one structure.

    Attributes:
      name: what is compared.
      f, reference: the two functions.
      draws: one or more tuples of arguments, alike in shapes and dtypes.
    """

    name: str
    f: Callable[..., Any]
    reference: Callable[..., Any]
    draws: Sequence[tuple[Any, ...]]


def compare(job: Job) -> Comparison:
    """Run both in one compiled program on every draw, and find the leaf with the largest error.

    Matrix products run in full precision.

    Raises:
      ValueError: the two results are not of one structure.
    """
    both = jax.jit(lambda *arguments: (job.f(*arguments), job.reference(*arguments)))
    with jax.default_matmul_precision("highest"):
        lowered = both.lower(*job.draws[0])
        try:
            compiled = lowered.compile(QUICK_TO_COMPILE)
        except jax.errors.JaxRuntimeError:
            compiled = lowered.compile()
    found = [_worst_leaf(job.name, *compiled(*arguments)) for arguments in job.draws]
    return max(found, key=lambda comparison: np.nan_to_num(comparison.error, nan=np.inf))


def _worst_leaf(name: str, result: Any, reference: Any) -> Comparison:
    if jax.tree.structure(result) != jax.tree.structure(reference):
        raise ValueError(f"{name}: {jax.tree.structure(result)} is not {jax.tree.structure(reference)}")
    leaves = jax.tree.leaves_with_path(result)
    errors = [relative_error(one, two) for (_, one), two in zip(leaves, jax.tree.leaves(reference), strict=True)]
    worst = int(np.argmax(errors))  # a NaN counts as the largest
    path, leaf = leaves[worst]
    return Comparison(name, errors[worst], jax.tree_util.keystr(path, simple=True, separator="."), str(leaf.dtype))


def compare_all(jobs: Iterable[Job], workers: int = 2) -> Iterator[Comparison]:
    """`compare` for each job, in order, a few at a time: XLA compiles outside Python's lock."""
    # Whether float64 is on is a setting of this thread, which the workers don't inherit.
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64

    def in_worker(job: Job) -> Comparison:
        with jax.enable_x64(x64):
            return compare(job)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(in_worker, jobs)


def relative_error(value: Any, reference: Any) -> float:
    """max |value − reference| / max |reference|; 0 where both are all zeros, NaN where either has a NaN."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    difference = np.max(np.abs(value - reference), initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(difference / np.max(np.abs(reference), initial=0.0)) if difference != 0 else 0.0
