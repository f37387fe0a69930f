"""Indices that all differ: whether what meets at one place is added up shows only where an index occurs twice."""

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.evidence.elsewhere import differs
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, put
from handgrad.crosscheck.subject.held import primitives


def of_repeated_indices(evidence: Evidence) -> str:
    """A note where a gradient that is right for these indices is wrong for repeated ones; "" elsewhere.

    It is no error: the function may be meant for a permutation alone.
    """
    programs, dYs = evidence.programs, evidence.dYs[0]
    distinct = [i for i, leaf in enumerate(evidence.leaves) if _is_distinct(leaf)]
    if not distinct or programs.without_autodiff or not evidence.trusted:
        return ""
    jaxpr = programs.jaxpr(evidence.leaves, dYs)
    if jaxpr is None or "scatter-add" not in primitives(jaxpr):
        return ""
    leaves: Leaves = put(evidence.leaves, distinct, [_in_pairs(np.asarray(evidence.leaves[i])) for i in distinct])
    try:
        mine, theirs = programs.by_hand(leaves, dYs)[1], programs.by_autodiff(leaves, dYs)[1]
    except (ProblemError, *programs.needs_numbers):
        return ""
    where = differs(evidence.wanted, mine, theirs, evidence.hand[0])
    names = " and ".join(programs.problem.names[i] for i in distinct)
    words = f"no index in {names} occurs twice. Where one does"
    return f"{words}, {where}: is it overwritten instead of added to?" if where else ""


def _is_distinct(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", np.dtype(object))
    if not jnp.issubdtype(dtype, jnp.integer):
        return False
    numbers = np.asarray(leaf)
    return numbers.size > 1 and len(np.unique(numbers)) == numbers.size


def _in_pairs(indices: np.ndarray) -> np.ndarray:
    """[4, 2, 7] as [4, 4, 7]: of the same range."""
    flat = indices.reshape(-1).copy()
    flat[1::2] = flat[: len(flat) - 1 : 2]
    return flat.reshape(indices.shape)
