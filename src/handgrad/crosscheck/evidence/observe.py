"""The evidence on a function that JAX can't trace (NumPy, PyTorch, a compiled library): differences alone."""

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.compare import stack
from handgrad.crosscheck.evidence.draws import cotangents
from handgrad.crosscheck.evidence.evidence import Evidence, Group, LeafEvidence, OutputEvidence
from handgrad.crosscheck.evidence.kinks import Kink
from handgrad.crosscheck.evidence.oracle import DIRECTIONS, Findings
from handgrad.crosscheck.evidence.view import Index, View, element
from handgrad.crosscheck.numerics import differences
from handgrad.crosscheck.report.report import Contract
from handgrad.crosscheck.subject.arguments import Leaves, largest, put, wide, widened
from handgrad.crosscheck.subject.programs import Programs

ELEMENTS = 256  # of a leaf that are differenced one by one; the rest along random directions
ROUNDINGS = 1024  # of a program that can't be counted


def observe(
    programs: Programs, leaves: Leaves, seed: int, draws: int, rtol: float | None, atol: float
) -> tuple[Evidence, Findings, list[Contract]]:
    """The evidence at these inputs, what differences found, and whether large leaves agree with them on the whole.

    Raises:
      ProblemError: one of the functions raises.
    """
    drawn = cotangents(programs, seed, draws, leaves)
    ran = [programs.by_hand(leaves, dYs) for dYs in drawn.dYs]
    Ys = programs.primal(widened(leaves))
    outputs = [
        OutputEvidence(name, mine, mine, np.asarray(truth).astype(wide(mine.dtype)), np.inf)
        for name, mine, truth in zip(programs.output_names, ran[0][0], Ys, strict=True)
    ]
    wanted = [_unknown(programs, leaves, position, len(drawn.dYs), rtol) for position in programs.problem.wanted]
    ways = tuple(zip(*((leaf.noise, leaf.relative, leaf.unit) for leaf in wanted), strict=True))
    evidence = Evidence(
        programs,
        leaves,
        drawn.dYs,
        drawn.random,
        tuple(Group(draws, *ways) for draws in drawn.groups.values()),
        wanted,
        outputs,
        [cotangents for _, cotangents in ran],
        ROUNDINGS,
        None,
        trusted=False,
        rtol=rtol,
        atol=atol,
    )
    kinks: list[Kink] = []
    unsure: dict[int, str] = {}
    promises: list[Contract] = []
    for i in range(len(evidence.wanted)):
        evidence, found, words = _differenced(evidence, i, seed)
        kinks += found
        if words:
            unsure[i] = words
        elif evidence.wanted[i].value.size > ELEMENTS:
            promises.append(_along_directions(evidence, i, seed))
    return evidence, Findings(tuple(kinks), unsure=unsure), promises


def _unknown(programs: Programs, leaves: Leaves, position: int, draws: int, rtol: float | None) -> LeafEvidence:
    value = np.asarray(leaves[position])
    nothing = np.full((draws, *value.shape), np.nan, wide(value.dtype))
    return LeafEvidence(
        programs.problem.names[position],
        value,
        nothing,
        nothing,
        errors=np.zeros(draws),
        absolutes=np.zeros(draws),
        naturals=np.zeros(draws),
        noise=0.0,
        relative=tolerance.floor(value.dtype, ROUNDINGS),
        unit=tolerance.unit_roundoff(value.dtype),
        rtol=rtol,
        trap=np.zeros(nothing.shape, bool),
    )


def _differenced(evidence: Evidence, i: int, seed: int) -> tuple[Evidence, list[Kink], str]:
    """The evidence with the i-th leaf's gradient by differences, its kinks, and why it is unsure.

    The elements that are not differenced have infinite slack: directions compare them.
    """
    leaf = evidence.wanted[i]
    truth, kinks, words, uncertain = np.zeros_like(leaf.truth), [], "", 0.0
    slack = np.full(leaf.truth.shape, np.inf)
    for index in _chosen(leaf.value.shape, seed):
        found = element(evidence, i, index)
        at = (slice(None), *index)
        if found.kind in (differences.KINK, differences.SMOOTH):
            truth[at] = found.slope
        if found.kind == differences.KINK:
            kinks.append(Kink(i, index, found.low, found.high))
        elif found.kind == differences.SMOOTH:
            slack[at], uncertain = 0.0, max(uncertain, largest(found.error))
        else:
            words = f"differences have no certain digit at {list(index)}"
    sizes = np.array([largest(one) for one in truth])
    # As against autodiff, and what their own estimate may miss.
    errors = np.full(len(truth), tolerance.DOUBT * uncertain + tolerance.MISSED * largest(sizes)) / tolerance.RATIO
    found = {"truth": truth, "autodiff": truth, "slack": slack, "absolutes": sizes, "errors": errors}
    return evidence.with_leaf(i, **found), kinks, words


def _chosen(shape: tuple[int, ...], seed: int) -> list[Index]:
    size = int(np.prod(shape))
    picked = range(size)
    if size > ELEMENTS:
        picked = np.random.default_rng((seed, 10)).choice(size, ELEMENTS, replace=False)
    return [tuple(int(j) for j in np.unravel_index(k, shape)) for k in picked]


def _along_directions(evidence: Evidence, i: int, seed: int) -> Contract:
    """Whether the gradient by hand agrees with differences along random directions of one leaf."""
    leaf, n = evidence.wanted[i], evidence.random
    words = f"{leaf.name}: {ELEMENTS} of {leaf.value.size} elements one by one, all along {DIRECTIONS} directions"
    hand = stack(evidence.hand[:n], i)
    if hand is None or hand.shape != leaf.truth[:n].shape:
        return Contract(words, "SKIPPED", "the shape is wrong already")
    leaves, position = widened(evidence.leaves), evidence.programs.problem.wanted[i]
    rng, size = np.random.default_rng((seed, 11)), largest(leaves[position]) or 1.0
    for _ in range(DIRECTIONS):
        v = size * rng.choice([-1.0, 1.0], leaf.value.shape)
        direction = put([None] * len(leaves), [position], [v])
        view = View(evidence, direction, n)
        found = differences.along(view, leaves, direction)
        if np.any(found.kind[0] != differences.SMOOTH):
            return Contract(words, "SKIPPED", "not smooth along a random direction")
        slope, error = np.real(view.weights @ found.slope[0]), np.abs(view.weights) @ found.error[0] + view.hidden
        expected = np.real(hand.reshape(n, -1) @ v.reshape(-1))
        bound = tolerance.DOUBT * error + leaf.tolerance * v.size * size
        if np.any(np.abs(slope - expected) > bound):
            detail = f"{expected[0]:.6g} by hand along a direction, {slope[0]:.6g} by differences"
            return Contract(words, "FAIL", detail)
    return Contract(words, "PASS")
