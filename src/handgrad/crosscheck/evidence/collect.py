"""Every reference, and the function under test, run on each cotangent."""

from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend.core import Literal

from handgrad.crosscheck.evidence import roundings, tolerance
from handgrad.crosscheck.evidence.draws import BASIS, Draws, cotangents
from handgrad.crosscheck.evidence.evidence import Evidence, Group, LeafEvidence, OutputEvidence
from handgrad.crosscheck.evidence.noise import conditioning, neighbors, scatter
from handgrad.crosscheck.subject.arguments import Leaves, largest, wide
from handgrad.crosscheck.subject.programs import Programs

UNTRACED = 64  # roundings, where the reference can't be traced and so not counted


def collect(
    programs: Programs,
    leaves: Leaves,
    seed: int = 0,
    draws: int = 3,
    rtol: float | None = None,
    atol: float = 0.0,
    basis: int = BASIS,
) -> Evidence:
    """The evidence at these inputs.

    Args:
      programs: of the problem.
      leaves: the inputs.
      seed: of the cotangents.
      draws: random cotangents.
      rtol, atol: the user's tolerance, and slack.
      basis: outputs up to so many elements get their whole Jacobian.
    Raises:
      ProblemError: one of the functions raises.
    """
    drawn = cotangents(programs, seed, draws, leaves, basis)
    ways = (programs.by_hand, programs.by_autodiff, programs.in_float64)
    first = [way(leaves, drawn.dYs[0]) for way in ways]
    drawn = _where_finite(drawn, first[2][0])
    found = [[way(leaves, dYs) for way in ways] for dYs in drawn.dYs]
    hand, autodiff, truth = ([one[way][1] for one in found] for way in range(3))
    Ys = found[0][0][0], found[0][1][0], found[0][2][0]

    precisions = {only: _precision(programs, leaves, drawn.dYs[0], only) for only in drawn.groups}
    noises = {}
    for only, group in drawn.groups.items():
        chosen = [k for k in group if k < drawn.random]
        given = [drawn.dYs[k] for k in chosen], [autodiff[k] for k in chosen]
        noises[only] = neighbors(programs.by_autodiff, leaves, *given, Ys[1], seed)
    groups = [
        _group(programs, leaves, draws, noises[only][0], precisions[only]) for only, draws in drawn.groups.items()
    ]
    constant = _constant(programs.jaxpr(leaves, drawn.dYs[0]), programs)
    naturals = _naturals(drawn.dYs, Ys[2])
    wanted = []
    for i, position in enumerate(programs.problem.wanted):
        leaf = np.asarray(leaves[position])
        exact = np.stack([draw[i] for draw in truth])
        given = np.stack([draw[i].astype(wide(leaf.dtype)) for draw in autodiff])
        size = largest(leaf.astype(wide(leaf.dtype)))
        with np.errstate(invalid="ignore"):
            errors = np.array([largest(one - other) for one, other in zip(given, exact, strict=True)])
        wanted.append(
            LeafEvidence(
                programs.problem.names[position],
                leaf,
                exact,
                given,
                errors=errors,
                absolutes=absolute_values(exact, drawn.dYs, drawn.random),
                naturals=naturals / size if size > 0 else 0 * naturals,
                noise=groups[0].noises[i],
                relative=groups[0].relatives[i],
                unit=groups[0].units[i],
                rtol=rtol,
                trap=~np.isfinite(exact),
                constant=constant[i],
            )
        )
    depth, coarse = precisions[None]
    wobbles = [max(sizes) for sizes in zip(*(Y for _, Y in noises.values()), strict=True)]
    own = [precisions.get(j, precisions[None]) for j in range(len(Ys[0]))]
    evidence = Evidence(
        programs,
        leaves,
        drawn.dYs,
        drawn.random,
        tuple(groups),
        wanted,
        _outputs(programs, Ys, wobbles, own, rtol, atol),
        hand,
        depth,
        coarse,
        rtol=rtol,
        atol=atol,
    )
    return _conditioned(_second_look(evidence, seed), truth, seed)


def absolute_values(truth: np.ndarray, dYs: list[Leaves], random: int) -> np.ndarray:
    """(draws,) max (|Jᵀ| |dY|): the size of the terms that a gradient's element is a sum of; 0 for the Jacobian's rows.
    Without the whole Jacobian |Jᵀ dY| itself takes its place."""
    rows = truth[random:]
    sizes = np.array([largest(one) for one in truth])
    if len(rows):
        sizes[random:] = 0
        flat = [np.abs(np.concatenate([np.asarray(a, wide(a.dtype)).reshape(-1) for a in dY])) for dY in dYs]
        unit = [(int(np.argmax(row)), float(np.max(row))) for row in flat[random:]]
        reached = [(k, at, height) for k, (at, height) in enumerate(unit) if height > 0]
        with np.errstate(invalid="ignore"):
            for draw in range(random):
                weights = np.array([flat[draw][at] / height for _, at, height in reached])
                sizes[draw] = largest(np.tensordot(weights, np.abs(rows[[k for k, *_ in reached]]), 1))
    return sizes


def _where_finite(drawn: Draws, Ys: Leaves) -> Draws:
    """The cotangents without the elements whose output isn't finite by the reference: there is nothing to compare."""
    finite = [np.isfinite(Y) for Y in Ys]
    if all(where.all() for where in finite):
        return drawn
    dYs = [
        [np.where(where, dY, np.zeros_like(dY)) for dY, where in zip(draw, finite, strict=True)] for draw in drawn.dYs
    ]
    return drawn._replace(dYs=dYs)


def _outputs(
    programs: Programs,
    Ys: tuple[Leaves, Leaves, Leaves],
    wobbles: list[float],
    precisions: list[tuple[int, Any]],
    rtol: float | None,
    atol: float,
) -> list[OutputEvidence]:
    found = []
    each = zip(programs.output_names, *Ys, wobbles, precisions, strict=True)
    for name, mine, theirs, truth, wobble, (depth, coarse) in each:
        told_apart = tolerance.coarser(mine.dtype, theirs.dtype, coarse)
        with np.errstate(invalid="ignore"):
            error = max(largest(theirs.astype(truth.dtype) - truth), wobble)
        size = largest(truth)
        bound = tolerance.of_output(
            error, tolerance.unit_roundoff(told_apart), tolerance.floor(told_apart, depth), size
        )
        found.append(OutputEvidence(name, mine, theirs, truth, bound if rtol is None else rtol * size + atol))
    return found


def _second_look(evidence: Evidence, seed: int) -> Evidence:
    """A close call may be the function's own rounding: its error scatters among inputs nearby.

    An unstable formula for the right gradient (a cancellation that autodiff's doesn't have) errs more than autodiff,
    and isn't wrong for that. Its error is another one at every input nearby; a wrong formula's changes smoothly. Only
    errors near rounding get a second look.
    """
    if evidence.rtol is not None:
        return evidence
    close = set()
    for part in evidence.parts:
        for i, leaf in enumerate(part.wanted):
            arrays = [draw[i] for draw in part.hand]
            if all(a.shape == leaf.value.shape for a in arrays):
                with np.errstate(invalid="ignore"):
                    error = max(largest(a.astype(t.dtype) - t) for a, t in zip(arrays, leaf.truth, strict=True))
                # The terms that cancel may be as large as those of the output: a softmax that is saturated.
                size = max(leaf.scale, leaf.natural, leaf.natural * largest(leaf.value))
                if leaf.tolerance < error <= tolerance.close_call(leaf.unit, size, leaf.tolerance):
                    close.add(i)
    if not close and not any(Y.close_call for Y in evidence.outputs):
        return evidence
    strays, of_outputs = scatter(evidence.programs, evidence.leaves, evidence.dYs[: evidence.random], seed)
    for i in close:
        evidence = evidence.with_leaf(i, own_noise=strays[i])
    outputs = [
        replace(Y, tolerance=Y.tolerance + tolerance.RATIO * stray) if Y.close_call else Y
        for Y, stray in zip(evidence.outputs, of_outputs, strict=True)
    ]
    return replace(evidence, outputs=outputs)


def _conditioned(evidence: Evidence, truth: list[Leaves], seed: int) -> Evidence:
    """Where noise hides a gradient: is it the function's, or the reference's alone?"""
    blind = [i for i, leaf in enumerate(evidence.wanted) if leaf.blind and leaf.scale > 0 and leaf.rtol is None]
    if not blind or evidence.programs.wide:
        return evidence
    n = evidence.random
    moved = conditioning(evidence.programs, evidence.leaves, evidence.dYs[:n], truth[:n], seed)
    for i in blind:
        evidence = evidence.with_leaf(i, conditioning=moved[i])
    return evidence


def _naturals(dYs: list[Leaves], Ys: Leaves) -> np.ndarray:
    """(draws,) the sum of |dY| |Y| over outputs, each at its largest."""
    outputs = [largest(Y) for Y in Ys]
    return np.array(
        [sum(largest(np.asarray(a, wide(a.dtype))) * y for a, y in zip(dY, outputs, strict=True)) for dY in dYs]
    )


def _precision(programs: Programs, leaves: Leaves, dYs: Leaves, only: int | None) -> tuple[int, Any]:
    """(roundings, the type below float64 that the reference computes in), of one leaf of the output or of all.

    A reference that casts to float32 whatever comes in is no truth beyond float32.
    """
    jaxpr = programs.jaxpr(leaves, dYs, only)
    return (UNTRACED, None) if jaxpr is None else (roundings.depth(jaxpr), roundings.coarse_intermediates(jaxpr))


def _group(
    programs: Programs, leaves: Leaves, draws: tuple[int, ...], noises: list[float], precision: tuple[int, Any]
) -> Group:
    depth, coarse = precision
    told_apart = [tolerance.coarser(leaves[i].dtype, coarse) for i in programs.problem.wanted]
    relatives = tuple(tolerance.floor(dtype, depth) for dtype in told_apart)
    return Group(draws, tuple(noises), relatives, tuple(map(tolerance.unit_roundoff, told_apart)))


def _constant(jaxpr: Any, programs: Programs) -> list[bool]:
    """Whether each cotangent of a traced pullback depends on no dY: a zero by the reference's structure."""
    if jaxpr is None:
        return [False] * len(programs.problem.wanted)
    inner = jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr
    reached = set(inner.invars[len(programs.problem.leaves) :])
    for equation in inner.eqns:
        if any(not isinstance(atom, Literal) and atom in reached for atom in equation.invars):
            reached.update(equation.outvars)
    return [isinstance(atom, Literal) or atom not in reached for atom in inner.outvars[len(programs.outputs) :]]
