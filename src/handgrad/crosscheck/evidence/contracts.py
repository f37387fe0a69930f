"""What every backward pass satisfies, whatever it differentiates: no reference is needed to detect a violation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.elsewhere import nan_stays, passes, second_input, small_batches
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.report.report import Contract
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, largest, wide
from handgrad.crosscheck.subject.compiling import on_device, precise
from handgrad.crosscheck.subject.problem import Kept
from handgrad.crosscheck.subject.stepwise import stepwise

SAME_BITS = "called twice gives the same bits"
FORWARD = "forward equals the reference"


def contracts(evidence: Evidence, apart: float | None = None) -> list[Contract]:
    """Look at every contract at these inputs.

    A contract that doesn't apply here (no batch axis, no forward mode) is SKIPPED, and says why.

    Args:
      evidence: at these inputs.
      apart: share of a leaf's largest gradient that two calls may differ by; None: a few roundings.
    """
    if not all(np.isfinite(_wide(g)).all() for draw in evidence.hand for g in draw):
        return [forward_equals_reference(evidence), Contract("the other contracts", "SKIPPED", "it isn't finite here")]
    return excused(evidence, lambda evidence: _contracts(evidence, apart))


def excused(evidence: Evidence, look: Callable[[Evidence], list[Contract]]) -> list[Contract]:
    """What `look` finds; what is kept only within the user's `atol` is neither kept nor broken."""
    found = look(evidence)
    if not evidence.atol or all(one.status != "FAIL" for one in found):
        return found
    loose = replace(evidence, wanted=[replace(leaf, excuse=evidence.atol) for leaf in evidence.wanted])
    lenient = {one.name: one.status for one in look(loose)}
    words = f"within atol = {evidence.atol:g}: excused, but nothing is shown"
    return [
        Contract(one.name, "INCONCLUSIVE", words) if (one.status, lenient.get(one.name)) == ("FAIL", "PASS") else one
        for one in found
    ]


def _contracts(evidence: Evidence, apart: float | None) -> list[Contract]:
    checks: tuple[Callable[[Evidence], Contract], ...] = (
        forward_equals_reference,
        zero_gives_zero,
        linear,
        adjoint,
        lambda evidence: same_bits(evidence, apart),
        second_input,
        residuals_untouched,
        nan_stays,
    )
    return [*(check(evidence) for check in checks), *small_batches(evidence)]


def without_reference(evidence: Evidence, apart: float | None = None) -> list[Contract]:
    """Those contracts that need no autodiff of a reference either."""

    def look(evidence: Evidence) -> list[Contract]:
        return [zero_gives_zero(evidence), linear(evidence), same_bits(evidence, apart), residuals_untouched(evidence)]

    return excused(evidence, look)


def forward_equals_reference(evidence: Evidence) -> Contract:
    """Y by hand is the reference's, to rounding, and of its dtype."""
    for Y in evidence.outputs:
        off = Y.off
        # What overflows by autodiff too is no difference.
        somewhere = np.isfinite(_wide(Y.hand)) | np.isfinite(_wide(Y.autodiff))
        bad = ~(off <= Y.tolerance) & np.isfinite(Y.truth) & somewhere
        if bad.any():
            at = tuple(int(j) for j in np.unravel_index(int(np.argmax(np.where(bad, off, -1))), off.shape))
            place = f"{Y.name}{list(at) if at else ''}"
            detail = f"{place} is {Y.hand[at]:.6g}, the reference's {Y.truth[at]:.6g}, {off[at]:.2g} apart"
            return Contract(FORWARD, "FAIL", detail)
        if Y.hand.dtype != Y.autodiff.dtype:
            return Contract(FORWARD, "FAIL", f"{Y.name} is {Y.hand.dtype}, the reference's {Y.autodiff.dtype}")
    return Contract(FORWARD, "PASS")


def zero_gives_zero(evidence: Evidence) -> Contract:
    """A zero cotangent gives a gradient of zeros."""
    name = "a zero cotangent gives zero"
    zeros = [np.zeros_like(dY) for dY in evidence.dYs[0]]
    for leaf, g in zip(evidence.wanted, evidence.programs.by_hand(evidence.leaves, zeros)[1], strict=True):
        if np.any(np.asarray(g, wide(g.dtype)) != 0):
            return Contract(name, "FAIL", f"{leaf.name} is up to {largest(np.asarray(g, wide(g.dtype))):.3g}")
    return Contract(name, "PASS")


def linear(evidence: Evidence) -> Contract:
    """Twice the cotangent gives twice the gradient, and two parts of a cotangent give two parts of it.

    Neither twice a number nor a number put in one of two parts is rounded.
    """
    name = "linear in the cotangent"
    dYs, leaves, programs = evidence.dYs[0], evidence.leaves, evidence.programs
    rng = np.random.default_rng(evidence.depth)
    whole = evidence.hand[0]
    twice = programs.by_hand(leaves, [(-2 * dY).astype(dY.dtype) for dY in dYs])[1]
    masks = [rng.random(dY.shape) < 0.5 for dY in dYs]
    one, other = (
        programs.by_hand(leaves, [np.where(m == side, dY, np.zeros_like(dY)) for m, dY in zip(masks, dYs, strict=True)])
        for side in (True, False)
    )
    for leaf, g, g2, a, b in zip(evidence.wanted, whole, twice, one[1], other[1], strict=True):
        g, g2, a, b = (np.asarray(array, wide(array.dtype)) for array in (g, g2, a, b))
        bound = tolerance.of_linearity(leaf.tolerance, leaf.unit, largest(g), leaf.vanishing)
        with np.errstate(invalid="ignore"):
            scaled, added = largest(g2 + 2 * g), largest(a + b - g)
        if scaled > 2 * bound:
            words = f"−2 dY gives something {scaled:.3g} away from −2 times the gradient"
            return Contract(name, "FAIL", f"{leaf.name}: {words}")
        if added > bound:
            words = f"the gradients of two parts of dY add up to something {added:.3g} away from the whole"
            return Contract(name, "FAIL", f"{leaf.name}: {words}")
    return Contract(name, "PASS")


def adjoint(evidence: Evidence) -> Contract:
    """⟨dY, J v⟩ = ⟨Jᵀ dY, v⟩, with J v by forward mode, which shares no transpose with the backward pass."""
    name = "adjoint: ⟨dY, J v⟩ = ⟨Jᵀ dY, v⟩"
    if not evidence.trusted:
        return Contract(name, "SKIPPED", "autodiff of the reference is wrong here")
    rng = np.random.default_rng((evidence.depth, 3))
    signs = [rng.choice([-1.0, 1.0], (2, *leaf.truth.shape[1:])) for leaf in evidence.wanted]
    vs = [a + 1j * b if np.iscomplexobj(leaf.truth) else a for (a, b), leaf in zip(signs, evidence.wanted, strict=True)]
    vs = [v / (leaf.scale or 1.0) for v, leaf in zip(vs, evidence.wanted, strict=True)]
    try:
        Jv = evidence.programs.tangent(evidence.leaves, vs)
    except (ProblemError, TypeError) as error:
        return Contract(name, "SKIPPED", f"no forward mode: {type(error.__cause__ or error).__name__}")
    if not all(np.isfinite(array).all() for array in Jv):
        return Contract(name, "SKIPPED", "J v is not finite")
    for dYs, hand in zip(evidence.dYs[: evidence.random], evidence.hand, strict=False):
        left = sum(float(np.sum(np.asarray(dY, wide(dY.dtype)) * y).real) for dY, y in zip(dYs, Jv, strict=True))
        if any(np.shape(g) != np.shape(v) for g, v in zip(hand, vs, strict=True)):
            return Contract(name, "FAIL", "a gradient has another shape than its argument")
        terms = [np.sum(np.asarray(g, wide(g.dtype)) * v).real for g, v in zip(hand, vs, strict=True)]
        right = float(sum(terms))
        bound = sum(
            tolerance.of_adjoint(leaf.tolerance, leaf.vanishing, leaf.scale, largest(v), v.size)
            for leaf, v in zip(evidence.wanted, vs, strict=True)
        )
        if not abs(left - right) <= bound:
            return Contract(name, "FAIL", f"{left:.6g} on the left, {right:.6g} on the right")
    return Contract(name, "PASS")


def same_bits(evidence: Evidence, apart: float | None) -> Contract:
    """Called twice on the same numbers, it returns the same bits; a few roundings apart is worth a note and no more."""
    again = evidence.programs.by_hand(list(evidence.leaves), evidence.dYs[0])[1]
    detail = ""
    for leaf, one, two in zip(evidence.wanted, evidence.hand[0], again, strict=True):
        if one.tobytes() == two.tobytes():
            continue
        off = largest(_wide(one) - _wide(two))
        allowed = (tolerance.APART * leaf.unit if apart is None else apart) * leaf.scale
        if not off <= allowed:
            return Contract(SAME_BITS, "FAIL", f"{leaf.name} differs by {off:.3g}")
        detail = f"other last bits: {leaf.name} differs by {off:.3g}"
    return Contract(SAME_BITS, "PASS", detail)


def residuals_untouched(evidence: Evidence) -> Contract:
    """The backward pass leaves the residuals as they were."""
    name, problem = "residuals stay as they were", evidence.programs.problem
    if problem.keep is None:
        return Contract(name, "SKIPPED", "JAX keeps them")
    untouched = partial(_untouched, name, evidence, problem.keep)
    return evidence.programs.in_numpy_first(untouched, passes)


def _untouched(name: str, evidence: Evidence, keep: Callable[[Leaves], Kept], in_numpy: bool) -> Contract:
    with precise(evidence.programs.problem.x64):
        leaves, dYs = on_device((evidence.leaves, evidence.dYs[0]))
        with stepwise(in_numpy):
            _, residuals, pull = keep(leaves)
        arrays = [leaf for leaf in jax.tree.leaves(residuals) if isinstance(leaf, np.ndarray | jax.Array)]
        arrays = [a for a in arrays if not jnp.issubdtype(a.dtype, jax.dtypes.extended)]
        before, structure = [np.array(a).tobytes() for a in arrays], jax.tree.structure(residuals)
        with stepwise(in_numpy):
            pull(residuals, dYs)
        after = [np.array(a).tobytes() for a in arrays]
        if jax.tree.structure(residuals) != structure:
            return Contract(name, "FAIL", "their structure changed")
    changed = sum(one != two for one, two in zip(before, after, strict=True))
    if changed:
        return Contract(name, "FAIL", f"{changed} of {len(arrays)} arrays changed")
    return Contract(name, "PASS")


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(wide(array.dtype))
