"""Two ways to the same gradient, side by side."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

# A comparison runs once, so compiling it is the whole price: ask XLA for little optimisation. Where a version of XLA
# doesn't know one of these names, its own defaults do.
QUICK_TO_COMPILE = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": False}


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
    """A comparison to be made: f(*arguments) against reference(*arguments), pytrees of one structure."""

    name: str
    f: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: tuple[Any, ...]


def compare(job: Job) -> Comparison:
    """Run both in one compiled program, with matrix products in full precision, and find the leaf with the largest
    error.

    Raises:
      ValueError: the two results are not of one structure.
    """
    both = jax.jit(lambda *arguments: (job.f(*arguments), job.reference(*arguments)))
    with jax.default_matmul_precision("highest"):
        lowered = both.lower(*job.arguments)
        try:
            compiled = lowered.compile(QUICK_TO_COMPILE)
        except jax.errors.JaxRuntimeError:
            compiled = lowered.compile()
    result, reference = compiled(*job.arguments)
    if jax.tree.structure(result) != jax.tree.structure(reference):
        raise ValueError(f"{job.name}: {jax.tree.structure(result)} is not {jax.tree.structure(reference)}")
    leaves = jax.tree.leaves_with_path(result)
    errors = [relative_error(one, two) for (_, one), two in zip(leaves, jax.tree.leaves(reference), strict=True)]
    worst = int(np.argmax(errors))  # a NaN counts as the largest
    path, leaf = leaves[worst]
    return Comparison(job.name, errors[worst], jax.tree_util.keystr(path, simple=True, separator="."), str(leaf.dtype))


def compare_all(jobs: Iterable[Job], workers: int = 2) -> Iterator[Comparison]:
    """`compare` for each job, in order, a few at a time: XLA compiles outside Python's lock."""
    x64 = (
        jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    )  # a setting of this thread that the workers don't inherit

    def in_worker(job: Job) -> Comparison:
        with jax.enable_x64(x64):
            return compare(job)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(in_worker, jobs)


def relative_error(value: Any, reference: Any) -> float:
    """max |value − reference| / max |reference|; 0 where both are all zeros, NaN where either has a NaN."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    difference = np.max(np.abs(value - reference), initial=0.0)
    return float(difference / np.max(np.abs(reference), initial=0.0)) if difference != 0 else 0.0
