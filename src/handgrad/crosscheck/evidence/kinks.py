"""Elements of the input where the reference has no derivative: any subgradient is right there."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.compare import stack
from handgrad.crosscheck.evidence.evidence import Evidence, LeafEvidence
from handgrad.crosscheck.evidence.view import Index, View, diagonals, pulled
from handgrad.crosscheck.numerics import differences
from handgrad.crosscheck.subject.arguments import largest, wide, widened

TOGETHER = 256  # kinks, at most, that are moved at once


@dataclass(frozen=True)
class Kink:
    """An element of the input where the slopes to its two sides differ.

    Attributes:
      leaf: the position among the wanted leaves.
      index: of the element.
      low, high: (draws,) the gradient's bounds: any subgradient in between is right. Of a complex element the bounds
        of its conjugate, part by part.
    """

    leaf: int
    index: Index
    low: np.ndarray
    high: np.ndarray


def accepts(evidence: Evidence, kink: Kink) -> bool:
    """Whether the gradient by hand lies between the two slopes, on every draw; of a complex element in eight
    directions, so that the corners of a square around the unit disc are not taken for subgradients of |z|."""
    hand, leaf = stack(evidence.hand, kink.leaf), evidence.wanted[kink.leaf]
    if hand is None or hand.shape != leaf.truth.shape:
        return False
    mine = np.conj(hand[(slice(None), *kink.index)])
    if not _between(mine, kink.low, kink.high, [leaf]):
        return False
    return not np.iscomplexobj(hand) or all(
        _between(np.real(mine * np.conj(phase)), low, high, [leaf])
        for phase, low, high in diagonals(evidence, kink.leaf, kink.index)
    )


def accepts_together(evidence: Evidence, kinks: list[Kink]) -> bool:
    """Whether the gradients at all kinks add up: along directions that move them together, the slope by hand lies
    between the two sides' too. (Of a maximum's gradient at a tie any share is right, and all shares make one.)"""
    positions = evidence.programs.problem.wanted
    leaves, kinks = widened(evidence.leaves), kinks[:TOGETHER]
    hands = {kink.leaf: stack(evidence.hand, kink.leaf) for kink in kinks}
    involved = [evidence.wanted[i] for i in hands]
    rng = np.random.default_rng(9)
    for together in (True, False, False):
        direction: list[np.ndarray | None] = [None] * len(leaves)
        size = max(largest(leaves[positions[kink.leaf]]) for kink in kinks) or 1.0
        mine = np.zeros(len(evidence.dYs))
        for kink in kinks:
            hand, position = hands[kink.leaf], positions[kink.leaf]
            if hand is None or hand.shape != evidence.wanted[kink.leaf].truth.shape or np.iscomplexobj(hand):
                return True
            v = direction[position]
            v = np.zeros(leaves[position].shape) if v is None else v
            v[kink.index] = size if together else size * rng.choice([-1.0, 1.0])
            direction[position] = v
            mine += v[kink.index] * hand[(slice(None), *kink.index)]
        view = View(evidence, direction, len(evidence.dYs))
        if view.projected:
            return True  # of a sum over outputs the two sides' slopes are no bounds
        found = pulled(view.weights, [differences.along(view, leaves, direction)])
        if found.kind in (differences.SMOOTH, differences.KINK) and not _between(
            mine / size, found.low / size, found.high / size, involved
        ):
            return False
    return True


def excuse(evidence: Evidence, kinks: Iterable[Kink], unseen: dict[int, np.ndarray]) -> Evidence:
    """At a kink autodiff's slope is one of many: those elements are left out of the comparison.

    So are the `unseen` ones, {leaf: (*shape) booleans}, whose leaf is inconclusive for it.
    """
    for i in sorted({kink.leaf for kink in kinks}):
        leaf = evidence.wanted[i]
        slack = np.zeros(leaf.truth.shape) if leaf.slack is None else leaf.slack.copy()
        for kink in kinks:
            if kink.leaf == i:
                slack[(slice(None), *kink.index)] = np.inf
        if i in unseen:
            slack[:, unseen[i]] = np.inf
        evidence = evidence.with_leaf(i, slack=slack)
    return evidence


def off_kinks(evidence: Evidence, kinks: Iterable[Kink], seed: int, every: int) -> list[np.ndarray]:
    """The inputs, with the elements on a kink moved by a few hundredths of their leaf's size; in a leaf of more than
    `every` elements, where not each was looked at, all that equal one."""
    rng = np.random.default_rng((seed, 2))
    wanted = evidence.programs.problem.wanted
    leaves = list(evidence.leaves)
    for i in {kink.leaf for kink in kinks}:
        leaf = evidence.wanted[i].value
        x = leaf.astype(wide(leaf.dtype))
        mine = [kink.index for kink in kinks if kink.leaf == i]
        on = np.zeros(leaf.shape, bool)
        for index in mine:
            on[index] = True
        if leaf.size > every:
            on |= np.isin(x, np.array([x[index] for index in mine]))
        step = (largest(x) or 1.0) * rng.choice([-1, 1], leaf.shape) * rng.uniform(2**-5, 2**-4, leaf.shape)
        leaves[wanted[i]] = (x + np.where(on, step, 0)).astype(leaf.dtype)
    return leaves


def _between(mine: np.ndarray, low: np.ndarray, high: np.ndarray, leaves: list[LeafEvidence]) -> bool:
    slack = max(tolerance.of_kink(leaf.autodiff_error, leaf.floor, 0, 0) for leaf in leaves)
    slack = slack + tolerance.of_kink(0, 0, low, high)
    parts = [[np.real(a) for a in (low, mine, high)], [np.imag(a) for a in (low, mine, high)]]
    return all(bool(np.all((least - slack <= g) & (g <= most + slack))) for least, g, most in parts)
