"""What every backward pass promises, whatever it differentiates: no oracle is needed to see it broken."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.report.report import Contract
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, largest, put, wide
from handgrad.crosscheck.subject.programs import precise

SPREAD = 6.0  # standard deviations that a sum of independent errors stays within


def contracts(evidence: Evidence) -> list[Contract]:
    """Look at every promise at these inputs.

    A promise that can't be looked at here (no batch axis, no forward mode) is SKIPPED, and says why.
    """
    if not all(np.isfinite(_wide(g)).all() for draw in evidence.hand for g in draw):
        return [forward_equals_reference(evidence), Contract("the other promises", "SKIPPED", "it isn't finite here")]
    checks: tuple[Callable[[Evidence], Contract], ...] = (
        forward_equals_reference,
        zero_gives_zero,
        linear,
        adjoint,
        same_bits,
        residuals_untouched,
        nan_stays,
    )
    return [*(check(evidence) for check in checks), *small_batches(evidence)]


def forward_equals_reference(evidence: Evidence) -> Contract:
    """Y by hand is the reference's, to rounding, and of its dtype."""
    name = "forward equals the reference"
    for (mine, theirs, truth), bound, output in zip(
        evidence.Ys, evidence.Y_tolerances, evidence.programs.output_names, strict=True
    ):
        with np.errstate(invalid="ignore"):
            off = np.abs(mine.astype(truth.dtype) - truth)
        # What overflows by autodiff too is no difference.
        bad = ~(off <= bound) & np.isfinite(truth) & (np.isfinite(_wide(mine)) | np.isfinite(_wide(theirs)))
        if bad.any():
            at = tuple(int(j) for j in np.unravel_index(int(np.argmax(np.where(bad, off, -1))), off.shape))
            place = f"{output}{list(at) if at else ''}"
            detail = f"{place} is {mine[at]:.6g}, the reference's {truth[at]:.6g}, {off[at]:.2g} apart"
            return Contract(name, "FAIL", detail)
        if mine.dtype != theirs.dtype:
            return Contract(name, "FAIL", f"{output} is {mine.dtype}, the reference's {theirs.dtype}")
    return Contract(name, "PASS")


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
        bound = 3 * leaf.tolerance + 4 * leaf.unit * largest(g) + leaf.vanishing
        with np.errstate(invalid="ignore"):
            scaled, added = largest(g2 + 2 * g), largest(a + b - g)
        if scaled > 2 * bound:
            return Contract(name, "FAIL", f"{leaf.name}: −2 dY gives {scaled:.3g} other than −2 times the gradient")
        if added > bound:
            return Contract(name, "FAIL", f"{leaf.name}: two parts of dY add up to {added:.3g} other than the whole")
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
        sizes = [v.size * largest(v) for v in vs]
        bound = SPREAD * sum(
            (leaf.tolerance + leaf.vanishing) * largest(v) * np.sqrt(v.size) + 1e-13 * leaf.scale * size
            for leaf, v, size in zip(evidence.wanted, vs, sizes, strict=True)
        )
        if not abs(left - right) <= bound:
            return Contract(name, "FAIL", f"{left:.6g} on the left, {right:.6g} on the right")
    return Contract(name, "PASS")


def same_bits(evidence: Evidence) -> Contract:
    """Called twice on the same numbers, it returns the same bits."""
    name = "called twice gives the same bits"
    again = evidence.programs.by_hand(evidence.leaves, evidence.dYs[0])[1]
    for leaf, one, two in zip(evidence.wanted, evidence.hand[0], again, strict=True):
        if one.tobytes() != two.tobytes():
            off = largest(np.asarray(one, wide(one.dtype)) - np.asarray(two, wide(two.dtype)))
            return Contract(name, "FAIL", f"{leaf.name} differs by {off:.3g}")
    return Contract(name, "PASS")


def residuals_untouched(evidence: Evidence) -> Contract:
    """The backward pass leaves the residuals as they were."""
    name, problem = "residuals stay as they were", evidence.programs.problem
    if problem.keep is None:
        return Contract(name, "SKIPPED", "JAX keeps them")
    with precise(problem.x64):
        _, residuals, pull = problem.keep([jnp.asarray(leaf) for leaf in evidence.leaves])
        arrays = [leaf for leaf in jax.tree.leaves(residuals) if isinstance(leaf, np.ndarray | jax.Array)]
        arrays = [a for a in arrays if not jnp.issubdtype(a.dtype, jax.dtypes.extended)]
        before, structure = [np.array(a).tobytes() for a in arrays], jax.tree.structure(residuals)
        pull(residuals, [jnp.asarray(dY) for dY in evidence.dYs[0]])
        after = [np.array(a).tobytes() for a in arrays]
        if jax.tree.structure(residuals) != structure:
            return Contract(name, "FAIL", "their structure changed")
    changed = sum(one != two for one, two in zip(before, after, strict=True))
    if changed:
        return Contract(name, "FAIL", f"{changed} of {len(arrays)} arrays changed")
    return Contract(name, "PASS")


def nan_stays(evidence: Evidence) -> Contract:
    """A NaN in one example reaches no element that it doesn't reach by autodiff."""
    name, batch, problem = "a NaN stays in its example", evidence.batch, evidence.programs.problem
    chosen = next((i for i in problem.wanted if evidence.leaves[i].shape[:1] == (batch,)), None)
    if chosen is None or batch is None or batch < 2 or not any(Y[0].shape[:1] == (batch,) for Y in evidence.Ys):
        return Contract(name, "SKIPPED", "no batch axis of two or more")
    poisoned = np.array(evidence.leaves[chosen])
    poisoned[0] = np.nan
    leaves = put(evidence.leaves, [chosen], [poisoned])
    mine, theirs = (
        way(leaves, evidence.dYs[0])[1] for way in (evidence.programs.by_hand, evidence.programs.by_autodiff)
    )
    for leaf, g, a in zip(evidence.wanted, mine, theirs, strict=True):
        if g.shape != a.shape:
            return Contract(name, "FAIL", f"{leaf.name} has shape {g.shape} for {a.shape}")
        extra = np.isnan(_wide(g)) & ~np.isnan(_wide(a))
        if leaf.value.shape[:1] == (batch,):
            extra[0] = False  # its own example may do with it what it likes
        if extra.any():
            where = f"NaN in {problem.names[chosen]}[0]"
            return Contract(name, "FAIL", f"{where} makes {int(extra.sum())} more elements of {leaf.name} NaN")
    return Contract(name, "PASS")


def small_batches(evidence: Evidence) -> Iterator[Contract]:
    """A batch of one, and an empty one, as the reference has it."""
    batch, programs = evidence.batch, evidence.programs
    for size, name in ((1, "a batch of one"), (0, "an empty batch")):
        cut = [leaf[:size] if leaf.shape[:1] == (batch,) else leaf for leaf in evidence.leaves]
        outputs = [Y[0].shape[:1] == (batch,) for Y in evidence.Ys]
        if batch is None or batch < 2 or not any(outputs) or not evidence.trusted:
            yield Contract(
                name, "SKIPPED", "no batch axis" if evidence.trusted else "autodiff of the reference is wrong"
            )
            continue
        dYs = [dY[:size] if has else dY for dY, has in zip(evidence.dYs[0], outputs, strict=True)]
        try:
            theirs = programs.by_autodiff(cut, dYs)[1]
        except ProblemError:
            yield Contract(name, "SKIPPED", "the reference has none")
            continue
        try:
            mine = programs.by_hand(cut, dYs)[1]
        except ProblemError as error:
            yield Contract(name, "SKIPPED", f"refused: {error.__cause__ or error}")
            continue
        yield _same(name, evidence, mine, theirs)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(wide(array.dtype))


def _same(name: str, evidence: Evidence, mine: Leaves, theirs: Leaves) -> Contract:
    for leaf, g, a in zip(evidence.wanted, mine, theirs, strict=True):
        if g.shape != a.shape or g.dtype != a.dtype:
            return Contract(name, "FAIL", f"{leaf.name} is {g.dtype} {g.shape}, the reference's {a.dtype} {a.shape}")
        g, a = np.asarray(g).astype(wide(g.dtype)), np.asarray(a).astype(wide(a.dtype))
        relative = leaf.tolerance / (leaf.scale or 1.0)
        with np.errstate(invalid="ignore"):
            off = largest(g - a)
        if off > 4 * relative * max(largest(a), leaf.scale):
            return Contract(name, "FAIL", f"{leaf.name} is {off:.3g} off")
    return Contract(name, "PASS")
