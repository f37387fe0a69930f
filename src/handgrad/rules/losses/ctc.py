"""Connectionist temporal classification: a sequence of labels for more frames, by the forward-backward recursion."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_choice, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.activations.softmax import log_softmax_forward
from handgrad.rules.losses._lattices import as_index, check_blank, check_integers, log_sum, moved, without_largest
from handgrad.rules.losses._losses import Losses, check_losses_cotangent

__all__ = ["CtcLossResiduals", "ctc_loss", "ctc_loss_backward", "ctc_loss_forward"]

Logits = Float[Array, "batch time classes"]
Labels = Integer[Array, "batch max_labels"]
Lengths = Integer[Array, " batch"]


class CtcLossResiduals(NamedTuple):
    """The arguments, references, and one half of the recursion.

    Attributes:
      Z: logits.
      labels, input_lengths, label_lengths: as given.
      log_alpha: log α less each frame's largest, float32 at least; None with residuals="recompute".
    """

    Z: Logits
    labels: Labels
    input_lengths: Lengths
    label_lengths: Lengths
    log_alpha: Float[Array, "batch time+1 2*max_labels+1"] | None


class _Lattice(NamedTuple):
    """One example's labels with a blank before, between and after them: states = 2 max_labels + 1.

    Attributes:
      classes: the class that each state emits.
      skips: whether a path may come from two states before: over a blank, to a label that differs.
      ends: whether a path may end here: the last label, or the blank behind it.
      live: whether the frame is one of the example's, not padding.
      valid: whether lengths and labels are in range.
    """

    classes: Integer[Array, "*batch states"]
    skips: Bool[Array, "*batch states"]
    ends: Bool[Array, "*batch states"]
    live: Bool[Array, "*batch time"]
    valid: Bool[Array, "*batch"]


def ctc_loss_forward(
    Z: Logits,
    labels: Labels,
    input_lengths: Lengths,
    label_lengths: Lengths,
    *,
    blank: int = 0,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Losses, CtcLossResiduals]:
    """C_b = −log p(labels | Z), p summed over every path that reads as the labels.

    A path names one class for each frame; it reads as the labels once repeats are merged and blanks taken out. Where
    there is no such path, because labels, and a blank between each two that are equal, need more frames than the input
    has, the loss is +∞ and its gradient 0. Frames from input_lengths on and labels from label_lengths on are padding:
    never read, of any value, NaN too. A length out of range, a label that names no class and a label that is the
    blank can't be seen at trace time: they make their example's loss and gradient NaN.

    Args:
      Z: logits; softmax is part of the rule.
      labels: integers in 0 … classes − 1, the blank excepted.
      input_lengths: the frames of each example, 0 … time.
      label_lengths: 0 … max_labels; 0 leaves the path of blanks alone.
      blank: the class that stands for no label.
      residuals: "save" keeps log α, "recompute" computes it again in the backward pass.
    Derivation: docs/derivations/losses/ctc.md (Graves et al. 2006)
    """
    where = "ctc_loss_forward"
    check_array(where, "the logits Z", Z)
    if Z.ndim != 3:
        raise InputError(f"{where}: the logits Z must have shape (batch, time, classes), got {describe(Z)}")
    for name, value in (("input_lengths", input_lengths), ("label_lengths", label_lengths)):
        check_integers(where, name, value, "(batch,)", Z.shape[0])
    check_integers(where, "labels", labels, "(batch, max_labels)", Z.shape[0])
    check_blank(where, blank, Z.shape[-1])
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    lattice = _lattice(Z, labels, input_lengths, label_lengths, blank)
    log_alpha, largest = meshes.along_batch(jax.vmap(_log_alpha), _emissions(Z, lattice), lattice)
    C = -(jnp.sum(largest, axis=(1, 2)) + _log_p(log_alpha, lattice))
    kept = CtcLossResiduals(Z, labels, input_lengths, label_lengths, log_alpha if residuals == "save" else None)
    return jnp.where(lattice.valid, C, jnp.nan).astype(Z.dtype), kept


def ctc_loss_backward(residuals: CtcLossResiduals, dC: Losses, *, blank: int = 0) -> tuple[Logits, None, None, None]:
    """Pull dC back through C_b = −log p(labels | Z).

        dZ = dC ∘ (softmax(Z) − Γ)      Γ_tk = Σ γ_t(s) over the states s that emit k;  γ_t(s) = α_t(s) β_t(s) / p

    0 in frames of padding, and where no path reads as the labels.

    Derivation: docs/derivations/losses/ctc.md
    """
    where = "ctc_loss_backward"
    Z, labels, input_lengths, label_lengths, log_alpha = check_residuals(where, residuals, CtcLossResiduals)
    check_losses_cotangent(where, dC, Z, Z.dtype)
    check_blank(where, blank, Z.shape[-1])
    lattice = _lattice(Z, labels, input_lengths, label_lengths, blank)
    log_Q = _emissions(Z, lattice)
    if log_alpha is None:
        log_alpha, _ = meshes.along_batch(jax.vmap(_log_alpha), log_Q, lattice)
    log_gamma = log_alpha[:, 1:] + meshes.along_batch(jax.vmap(_log_beta), log_Q, lattice)
    gamma = jnp.exp(log_softmax_forward(log_gamma)[0])  # by the sum over the states, which is p but for rounding
    P = jnp.exp(_log_probabilities(Z))
    dZ = P - meshes.along_batch(jax.vmap(_to_classes), gamma, lattice.classes, P)
    sure = P > 0.5  # one class of a row at most: P ≈ Γ may cancel there, but a row of dZ sums to 0
    dZ = jnp.where(sure, -jnp.sum(jnp.where(sure, 0, dZ), axis=2, keepdims=True), dZ)
    possible = jnp.expand_dims(_log_p(log_alpha, lattice) != -jnp.inf, -1)
    dZ = jnp.where(jnp.expand_dims(lattice.live & possible, -1), jnp.expand_dims(dC, (1, 2)) * dZ, 0)
    dZ = jnp.where(jnp.expand_dims(lattice.valid, (1, 2)), dZ, jnp.nan)
    return dZ.astype(Z.dtype), None, None, None


ctc_loss = Rule(ctc_loss_forward, ctc_loss_backward)


def _lattice(Z: Array, labels: Array, input_lengths: Array, label_lengths: Array, blank: int) -> _Lattice:
    """Every example's states, from its labels and lengths."""
    _, time, classes = Z.shape
    labels = as_index(labels)
    frames, length = (jnp.expand_dims(as_index(a), -1) for a in (input_lengths, label_lengths))
    count = labels.shape[1]
    padding = as_row(jnp.arange(count), 2) >= length
    valid = padding | ((labels >= 0) & (labels < classes) & (labels != blank))
    in_range = (frames >= 0) & (frames <= time) & (length >= 0) & (length <= count)
    safe = jnp.clip(labels, 0, classes - 1).astype(jnp.int32)
    around_each = (1, min(count, 1), 1)  # a blank before the first, behind the last, and between
    emitted = jax.lax.pad(safe, jnp.asarray(blank, safe.dtype), [(0, 0, 0), around_each])
    two_before = jnp.pad(emitted, ((0, 0), (2, 0)), constant_values=blank)[:, : 2 * count + 1]
    states = as_row(jnp.arange(2 * count + 1), 2)
    return _Lattice(
        classes=emitted,
        skips=(emitted != blank) & (emitted != two_before),
        ends=(states == 2 * length) | (states == 2 * length - 1),
        live=as_row(jnp.arange(time), 2) < frames,
        valid=jnp.all(valid, axis=-1) & jnp.squeeze(in_range, -1),
    )


def _log_probabilities(Z: Array) -> Array:
    """log softmax(Z), float32 at least."""
    return log_softmax_forward(jnp.asarray(Z, accumulator(Z)))[0]


def _emissions(Z: Array, lattice: _Lattice) -> Array:
    """log q_t(s), the probability of the class that state s emits: (batch, time, states)."""
    return jnp.take_along_axis(_log_probabilities(Z), jnp.expand_dims(lattice.classes, 1), axis=2)


def _log_alpha(log_Q: Array, lattice: _Lattice) -> tuple[Array, Array]:
    """log α_t(s), all ways to be in state s after t frames, for t = 0 … time: (time + 1, states), and (time, 1), each
    frame's largest, which is taken off. Before the first frame every path is in state 0, the blank before all labels.
    """
    start = jnp.where(jnp.arange(log_Q.shape[1]) == 0, 0, -jnp.inf).astype(log_Q.dtype)

    def one_frame(log_alpha: Array, frame: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        log_q, live = frame
        skipped = jnp.where(lattice.skips, moved(log_alpha, 2), -jnp.inf)
        ways = log_sum(jnp.stack([log_alpha, moved(log_alpha, 1), skipped]), axis=0)
        rest, largest = without_largest(jnp.where(live, log_q + ways, log_alpha))
        return rest, (rest, largest)

    _, (rest, largest) = meshes.scan(one_frame, start, (log_Q, lattice.live))
    return jnp.concatenate([start[None], rest]), largest


def _log_beta(log_Q: Array, lattice: _Lattice) -> Array:
    """log β_t(s), all ways from state s after t frames to an end, the largest taken off: (time, states)."""
    end = jnp.where(lattice.ends, 0, -jnp.inf).astype(log_Q.dtype)

    def one_frame(log_beta: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        log_q, live = frame
        entered = log_q + log_beta
        skips = moved(jnp.where(lattice.skips, entered, -jnp.inf), -2)
        ways = log_sum(jnp.stack([entered, moved(entered, -1), skips]), axis=0)
        return without_largest(jnp.where(live, ways, log_beta))[0], log_beta

    return meshes.scan(one_frame, end, (log_Q, lattice.live), reverse=True)[1]


def _log_p(log_alpha: Array, lattice: _Lattice) -> Array:
    """log p: what has arrived at an end after the last frame, (batch,); −∞ where nothing has."""
    return log_sum(jnp.where(lattice.ends, log_alpha[:, -1], -jnp.inf), axis=-1)


def _to_classes(gamma: Array, classes: Array, P: Array) -> Array:
    """Γ_tk: each state's share, added to the class that it emits. For one example."""
    return jnp.zeros_like(P).at[:, classes].add(gamma)
