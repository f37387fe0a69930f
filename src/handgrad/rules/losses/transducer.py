"""The transducer (RNN-T): a sequence of labels for more frames, over a lattice of frames and labels."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_choice, check_residuals, describe
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._softmax import chances, rest_below, shifted
from handgrad.rules.losses._lattices import (
    as_index,
    by_diagonals,
    by_nodes,
    check_blank,
    check_integers,
    log_sum,
    moved,
    without_largest,
)
from handgrad.rules.losses._losses import Losses, check_losses_cotangent

__all__ = ["TransducerLossResiduals", "transducer_loss", "transducer_loss_backward", "transducer_loss_forward"]

Logits = Float[Array, "batch time states classes"]
Labels = Integer[Array, "batch max_labels"]
Lengths = Integer[Array, " batch"]
Nodes = Float[Array, "batch time states"]
NONE = -1  # the class behind the last label: none


class TransducerLossResiduals(NamedTuple):
    """The arguments, references, and of the forward pass what is small beside them.

    Attributes:
      Z: logits.
      labels, input_lengths, label_lengths: as given.
      largest, rest: of each node's softmax max z and Σ e^(z − max z) − 1; None with residuals="recompute".
      log_alpha: log α of the nodes by diagonals, less each diagonal's largest; None likewise.
    """

    Z: Logits
    labels: Labels
    input_lengths: Lengths
    label_lengths: Lengths
    largest: Nodes | None
    rest: Nodes | None
    log_alpha: Float[Array, "batch diagonals states"] | None


class _Lattice(NamedTuple):
    """One example's nodes (t, u): t frames are over, u labels are out.

    Attributes:
      labels: the class of the next label at each u; NONE behind the last.
      inside: whether a node is one of the example's.
      may_blank, may_label: whether a blank, or a label, leads from a node to one of the example's or to the end.
      live: whether a diagonal, all nodes with one t + u, lies before the end.
      ends: whether u is all of the labels.
      valid: whether lengths and labels are in range.
    """

    labels: Integer[Array, "*batch states"]
    inside: Bool[Array, "*batch time states"]
    may_blank: Bool[Array, "*batch time states"]
    may_label: Bool[Array, "*batch time states"]
    live: Bool[Array, "*batch diagonals"]
    ends: Bool[Array, "*batch states"]
    valid: Bool[Array, "*batch"]


def transducer_loss_forward(
    Z: Logits,
    labels: Labels,
    input_lengths: Lengths,
    label_lengths: Lengths,
    *,
    blank: int = 0,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Losses, TransducerLossResiduals]:
    """C_b = −log p(labels | Z), p summed over every path through the lattice of frames and labels.

    At node (t, u), t frames over and u labels out, a blank goes on to the next frame and label u + 1 stays in this one;
    the last step of a path is the blank of the last frame behind the last label. Nodes past an example's frames or
    labels are padding: never read, of any value, NaN too. No frame and no label is a loss of 0; labels without a frame
    are a loss of +∞ with a gradient of 0. A length out of range, a label that names no class and a label that is the
    blank can't be seen at trace time: they make their example's loss and gradient NaN.

    Args:
      Z: logits of the joint network, one row for each frame and each number of labels; softmax is part of the rule.
      labels: integers in 0 … classes − 1, the blank excepted.
      input_lengths: the frames of each example, 0 … time.
      label_lengths: 0 … max_labels.
      blank: the class that stands for the next frame.
      residuals: "save" keeps log α and each node's softmax sum, "recompute" computes them again in the backward pass.
    Derivation: docs/derivations/losses/transducer.md (Graves 2012)
    """
    where = "transducer_loss_forward"
    check_array(where, "the logits Z", Z)
    if Z.ndim != 4:
        raise InputError(f"{where}: the logits Z must have shape (batch, time, labels + 1, classes), got {describe(Z)}")
    for name, value in (("input_lengths", input_lengths), ("label_lengths", label_lengths)):
        check_integers(where, name, value, "(batch,)", Z.shape[0])
    check_integers(where, "labels", labels, "(batch, max_labels)", Z.shape[0])
    if labels.shape[1] + 1 != Z.shape[2]:
        raise InputError(f"{where}: labels must have {Z.shape[2] - 1} columns, one less than Z, got {describe(labels)}")
    check_blank(where, blank, Z.shape[-1])
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    lattice = _lattice(Z, labels, input_lengths, label_lengths, blank)
    largest, rest = _sums(Z)
    log_alpha, taken = meshes.along_batch(jax.vmap(_log_alpha), *_steps(Z, largest, rest, lattice, blank), lattice)
    C = -(jnp.sum(taken, axis=(1, 2)) + _log_p(log_alpha, lattice))
    C = jnp.where(lattice.valid, C, jnp.nan).astype(Z.dtype)
    kept = (largest, rest, log_alpha) if residuals == "save" else (None, None, None)
    return C, TransducerLossResiduals(Z, labels, input_lengths, label_lengths, *kept)


def transducer_loss_backward(
    residuals: TransducerLossResiduals, dC: Losses, *, blank: int = 0
) -> tuple[Logits, None, None, None]:
    """Pull dC back through C_b = −log p(labels | Z).

        dZ = dC ∘ (γ P − Γ)      Γ_tuk: the probability of the step from (t, u) that emits k, given the labels;
                                 γ_tu = Σ_k Γ_tuk, that of passing by

    0 at nodes of padding, and where no path emits the labels.

    Derivation: docs/derivations/losses/transducer.md
    """
    where = "transducer_loss_backward"
    kept = check_residuals(where, residuals, TransducerLossResiduals)
    Z, labels, input_lengths, label_lengths, largest, rest, log_alpha = kept
    check_losses_cotangent(where, dC, Z, Z.dtype)
    check_blank(where, blank, Z.shape[-1])
    lattice = _lattice(Z, labels, input_lengths, label_lengths, blank)
    if largest is None or rest is None:
        largest, rest = _sums(Z)
    steps = _steps(Z, largest, rest, lattice, blank)
    if log_alpha is None:
        log_alpha, _ = meshes.along_batch(jax.vmap(_log_alpha), *steps, lattice)
    to_frame, to_label = meshes.along_batch(jax.vmap(_flows), *steps, log_alpha, lattice)

    dZ = _of_rows(Z, largest, rest, to_frame, to_label, lattice.labels, blank)
    possible = jnp.expand_dims(_log_p(log_alpha, lattice) != -jnp.inf, (1, 2))
    dZ = jnp.where(jnp.expand_dims(lattice.inside & possible, 3), jnp.expand_dims(dC, (1, 2, 3)) * dZ, 0)
    dZ = jnp.where(jnp.expand_dims(lattice.valid, (1, 2, 3)), dZ, jnp.nan)
    return dZ.astype(Z.dtype), None, None, None


transducer_loss = Rule(transducer_loss_forward, transducer_loss_backward)


def _lattice(Z: Array, labels: Array, input_lengths: Array, label_lengths: Array, blank: int) -> _Lattice:
    """Every example's nodes, from its labels and lengths."""
    _, time, count, classes = Z.shape
    labels = as_index(labels)
    frames, length = (jnp.expand_dims(as_index(a), (1, 2)) for a in (input_lengths, label_lengths))
    t, u = jnp.expand_dims(jnp.arange(time), (0, 2)), jnp.expand_dims(jnp.arange(count), (0, 1))
    inside = (t < frames) & (u <= length)
    next_label = jnp.pad(jnp.clip(labels, 0, classes - 1), ((0, 0), (0, 1)), constant_values=NONE)
    padding = jnp.squeeze(u, 1)[:, : count - 1] >= jnp.squeeze(length, 1)
    known = jnp.all(padding | ((labels >= 0) & (labels < classes) & (labels != blank)), axis=1)
    in_range = (frames >= 0) & (frames <= time) & (length >= 0) & (length < count)
    return _Lattice(
        labels=next_label.astype(jnp.int32),
        inside=inside,
        may_blank=inside & ((t < frames - 1) | (u == length)),
        may_label=inside & (u < length),
        live=jnp.expand_dims(jnp.arange(time + count - 1), 0) < jnp.squeeze(frames + length, 2),
        ends=jnp.squeeze(u == length, 1),
        valid=known & jnp.squeeze(in_range, (1, 2)),
    )


def _sums(Z: Array) -> tuple[Array, Array]:
    """max z and Σ e^(z − max z) − 1 of each node, float32 at least: (batch, time, max_labels + 1)."""
    wide = Z.astype(accumulator(Z))
    largest = jnp.max(wide, axis=3, keepdims=True)
    return jnp.squeeze(largest, 3), jnp.squeeze(rest_below(wide, largest), 3)


def _steps(Z: Array, largest: Array, rest: Array, lattice: _Lattice, blank: int) -> tuple[Array, Array]:
    """log P of the blank and of the next label at each node: (batch, time, max_labels + 1); −∞ where there is none."""
    index = jnp.expand_dims(jnp.maximum(lattice.labels, 0), (1, 3))
    of_label = jnp.squeeze(jnp.take_along_axis(Z, index, axis=3), 3)
    log_b, log_y = (z - largest - jnp.log1p(rest) for z in (Z[..., blank], of_label))
    return jnp.where(lattice.may_blank, log_b, -jnp.inf), jnp.where(lattice.may_label, log_y, -jnp.inf)


def _log_alpha(log_b: Array, log_y: Array, lattice: _Lattice) -> tuple[Array, Array]:
    """log α of all paths to a node, by diagonals: (time + max_labels + 1, max_labels + 1), element u of diagonal n
    being node (n − u, u); and each diagonal's largest, which is taken off. All paths begin at node (0, 0).
    """
    start = jnp.where(jnp.arange(log_b.shape[1]) == 0, 0, -jnp.inf).astype(log_b.dtype)

    def one_diagonal(log_alpha: Array, at: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        log_b, log_y, live = at
        ways = log_sum(jnp.stack([log_alpha + log_b, moved(log_alpha + log_y, 1)]), axis=0)
        left, largest = without_largest(jnp.where(live, ways, log_alpha))
        return left, (left, largest)

    _, (left, largest) = meshes.scan(one_diagonal, start, (by_diagonals(log_b), by_diagonals(log_y), lattice.live))
    return jnp.concatenate([start[None], left]), largest


def _flows(log_b: Array, log_y: Array, log_alpha: Array, lattice: _Lattice) -> tuple[Array, Array]:
    """The probabilities, given the labels, of the blank and of the label at each node: (time, max_labels + 1).

    log β, of all ways from a node to the end, runs from the last diagonal to the first. Every path crosses a diagonal
    once, so that γ = α β / p sums to 1 there: it is divided by its own sum.
    """
    end = jnp.where(lattice.ends, 0, -jnp.inf).astype(log_b.dtype)

    def one_diagonal(log_beta: Array, at: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        log_b, log_y, live, log_alpha = at
        by_blank, by_label = log_b + log_beta, log_y + moved(log_beta, -1)
        ways = log_sum(jnp.stack([by_blank, by_label]), axis=0)
        through, _ = without_largest(log_alpha + ways)
        none = ways == -jnp.inf
        gamma = jnp.exp(through) / jnp.sum(jnp.exp(through))
        some = jnp.where(none, 0, ways)
        to_frame, to_label = (jnp.where(none, 0, gamma * jnp.exp(by - some)) for by in (by_blank, by_label))
        return without_largest(jnp.where(live, ways, log_beta))[0], (to_frame, to_label)

    diagonals = (by_diagonals(log_b), by_diagonals(log_y), lattice.live, log_alpha[:-1])
    _, (to_frame, to_label) = meshes.scan(one_diagonal, end, diagonals, reverse=True)
    return by_nodes(to_frame), by_nodes(to_label)


def _of_rows(
    Z: Array, largest: Array, rest: Array, to_frame: Array, to_label: Array, labels: Array, blank: int
) -> Array:
    """γ P − Γ, node by node: the row of a cross-entropy whose target is what the node's two steps take."""
    to_frame, to_label, largest, rest = (jnp.expand_dims(a, 3) for a in (to_frame, to_label, largest, rest))
    gamma, classes = to_frame + to_label, jnp.expand_dims(jnp.arange(Z.shape[-1]), (0, 1, 2))
    is_blank, is_label = classes == blank, classes == jnp.expand_dims(labels, (1, 3))
    Gamma = jnp.where(is_blank, to_frame, jnp.where(is_label, to_label, 0))
    others = jnp.where(is_blank, to_label, jnp.where(is_label, to_frame, gamma))
    P, not_P = chances(shifted(Z.astype(largest.dtype), largest), rest)
    return jnp.where(P > 0.5, others - gamma * not_P, gamma * P - Gamma)  # near P = 1 the second cancels


def _log_p(log_alpha: Array, lattice: _Lattice) -> Array:
    """log p: what has arrived at the end, (batch,); −∞ where nothing has."""
    return jnp.max(jnp.where(lattice.ends, log_alpha[:, -1], -jnp.inf), axis=1)
