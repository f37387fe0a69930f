"""The linear-chain conditional random field: a label for each step, and a score for every two in a row."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_choice, check_residuals, check_shape, describe
from handgrad.factors import PerExample, Total
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.losses._lattices import as_index, check_integers, log_sum, without_largest
from handgrad.rules.losses._losses import Losses, check_losses_cotangent

__all__ = ["CrfLossResiduals", "crf_loss", "crf_loss_backward", "crf_loss_forward"]

Scores = Float[Array, "batch time tags"]
Vector = Float[Array, " tags"]
Labels = Integer[Array, "batch time"]
Lengths = Integer[Array, " batch"]


class CrfLossResiduals(NamedTuple):
    """The arguments, references, and one half of the recursion.

    Attributes:
      Z, W, start, end, labels, lengths: as given.
      log_ways: log of all ways to a tag at each step but for its own score, less what α of the step before had taken
        off, float32 at least; None with residuals="recompute".
    """

    Z: Scores
    W: Float[Array, "tags tags"]
    start: Vector | None
    end: Vector | None
    labels: Labels
    lengths: Lengths | None
    log_ways: Scores | None


class _Chain(NamedTuple):
    """One example's scores, float32 at least, with zeros for an omitted start or end.

    Attributes:
      live: whether a step is one of the example's, not padding.
      last: whether it is the last of these.
    """

    Z: Float[Array, "*batch time tags"]
    labels: Integer[Array, "*batch time"]
    live: Bool[Array, "*batch time"]
    last: Bool[Array, "*batch time"]
    W: Float[Array, "tags tags"]
    start: Vector
    end: Vector


EACH = _Chain._make((0, 0, 0, 0, None, None, None))  # the axes of jax.vmap: W, start and end are of all


def crf_loss_forward(
    Z: Scores,
    W: Float[Array, "tags tags"],
    start: Vector | None,
    end: Vector | None,
    labels: Labels,
    lengths: Lengths | None = None,
    *,
    residuals: Literal["save", "recompute"] = "save",
) -> tuple[Losses, CrfLossResiduals]:
    """C_b = −log p(labels | Z), p = e^score(labels) / Σ e^score(y) over all sequences y of tags.

        score(y) = start_{y_1} + Σ_t z_t(y_t) + Σ_t W_{y_t, y_{t+1}} + end_{y_T}

    A score of −∞ forbids a tag, or a tag behind another; if it forbids the labels, the loss is +∞ and its gradient 0.
    Steps from `lengths` on are padding: never read, of any value, NaN too. A label that names no tag and a length out
    of range can't be seen at trace time: they make their example's loss and its row of each cotangent NaN.

    Args:
      W: W_ij is the score of tag j behind tag i.
      start, end: scores of the first and of the last tag; None is zeros.
      lengths: the steps of each example, 0 … time; None is all. An example of no step has a loss of 0.
      residuals: "save" keeps one half of the recursion, "recompute" computes it again in the backward pass.
    Derivation: docs/derivations/losses/crf.md (Lafferty et al. 2001)
    """
    where = "crf_loss_forward"
    check_array(where, "the scores Z", Z)
    if Z.ndim != 3 or 0 in Z.shape[1:]:
        axes = "(batch, time, tags), time, tags ≥ 1"
        raise InputError(f"{where}: the scores Z must have shape {axes}, got {describe(Z)}")
    check_array(where, "W", W)
    check_shape(where, "W", W, (Z.shape[2], Z.shape[2]), "(from tag, to tag)")
    for name, vector in (("start", start), ("end", end)):
        if vector is not None:
            check_array(where, name, vector)
            check_shape(where, name, vector, (Z.shape[2],), "(a score for each tag)")
    check_integers(where, "labels", labels, "(batch, time)", Z.shape[0])
    check_shape(where, "labels", labels, Z.shape[:2], "(a tag for each step)")
    if lengths is not None:
        check_integers(where, "lengths", lengths, "(batch,)", Z.shape[0])
    check_choice(where, "residuals", residuals, ("save", "recompute"))
    kept = CrfLossResiduals(Z, W, start, end, labels, lengths, None)
    chain, valid = _chain(kept)
    log_ways, C = meshes.along_batch(jax.vmap(_log_ways, (EACH,)), chain)
    C = jnp.where(valid, C, jnp.nan).astype(_dtype(kept))
    return C, kept._replace(log_ways=log_ways if residuals == "save" else None)


def crf_loss_backward(
    residuals: CrfLossResiduals, dC: Losses
) -> tuple[Scores, PerExample, Total | None, Total | None, None, None]:
    """Pull dC back through C_b = −log p(labels | Z).

        dz_t = dC (γ_t − e_{y_t})        dW = Σ_t dC (Ξ_t − e_{y_t} e_{y_{t+1}}ᵀ)        dstart = dz_1    dend = dz_T

    γ_t(i) is the probability of tag i at step t, Ξ_t(i, j) that of i at t and j behind it; e is a one-hot column.

    Derivation: docs/derivations/losses/crf.md
    """
    where = "crf_loss_backward"
    kept = check_residuals(where, residuals, CrfLossResiduals)
    check_losses_cotangent(where, dC, kept.Z, _dtype(kept))
    chain, valid = _chain(kept)
    log_ways = kept.log_ways
    if log_ways is None:
        log_ways, _ = meshes.along_batch(jax.vmap(_log_ways, (EACH,)), chain)
    dZ, dW = meshes.along_batch(jax.vmap(_marginals, (EACH, 0)), chain, log_ways)
    dC, valid = (jnp.expand_dims(a, (1, 2)) for a in (dC.astype(dZ.dtype), valid))
    dZ = jnp.where(valid, jnp.where(jnp.expand_dims(chain.live, 2), dC * dZ, 0), jnp.nan)
    dW = jnp.where(valid, dC * dW, jnp.nan)
    at_end = jnp.sum(jnp.where(jnp.expand_dims(chain.last, 2) | ~valid, dZ, 0), axis=1)
    return (
        dZ.astype(kept.Z.dtype),
        PerExample(dW, kept.W.dtype),
        None if kept.start is None else Total(dZ[:, 0], kept.start.dtype),
        None if kept.end is None else Total(at_end, kept.end.dtype),
        None,
        None,
    )


crf_loss = Rule(crf_loss_forward, crf_loss_backward)


def _dtype(kept: CrfLossResiduals) -> jnp.dtype:
    """The loss's."""
    return jnp.result_type(*(a for a in kept[:4] if a is not None))


def _chain(kept: CrfLossResiduals) -> tuple[_Chain, Bool[Array, " batch"]]:
    """Every example's chain, its labels such as can be read; and whether labels and length are in range."""
    Z, W, start, end, labels, lengths, _ = kept
    dtype, (_, time, tags) = accumulator(_dtype(kept)), Z.shape
    Z, W = Z.astype(dtype), W.astype(dtype)
    start, end = (jnp.zeros(tags, dtype) if v is None else v.astype(dtype) for v in (start, end))
    labels, t = as_index(labels), jnp.expand_dims(jnp.arange(time), 0)
    length = jnp.full_like(labels[:, :1], time) if lengths is None else jnp.expand_dims(as_index(lengths), 1)
    live = t < length
    valid = (~live | ((labels >= 0) & (labels < tags))) & (length >= 0) & (length <= time)
    safe = jnp.clip(labels, 0, tags - 1).astype(jnp.int32)
    return _Chain(Z, safe, live, t == length - 1, W, start, end), jnp.all(valid, axis=1)


def _of_labels(chain: _Chain) -> tuple[Array, Array, Array]:
    """What the labels score at each step, by Z, (time,), and by start, W and end, (time + 1,), −∞ as 0; and whether
    none of it is −∞."""
    Z, labels, live, last, W, start, end = chain
    by_Z = jnp.take_along_axis(Z, labels[:, None], axis=1)[:, 0]
    final = end[jnp.sum(jnp.where(last, labels, 0))]
    by_W = jnp.concatenate([start[labels[:1]], W[labels[:-1], labels[1:]], final[None]])
    possible = jnp.all((by_Z != -jnp.inf) & (by_W[:-1] != -jnp.inf) | ~live) & (final != -jnp.inf)
    by_Z, by_W = (jnp.where(a == -jnp.inf, 0, a) for a in (by_Z, by_W))
    return by_Z, by_W, possible


def _log_ways(chain: _Chain) -> tuple[Float[Array, "time tags"], Float[Array, ""]]:
    """log of all ways to a tag at each step, the step's own score not yet among them; and the loss.

    Every step's scores are less those of the labels, and so the loss comes out without a difference of two large
    numbers; and less the step before's largest, which is added up beside.
    """
    Z, live, W, end = chain.Z, chain.live, chain.W, chain.end
    by_Z, by_W, possible = _of_labels(chain)
    first = chain.start - by_W[0]
    log_alpha, largest = without_largest(first + (Z[0] - by_Z[0]))

    def one_step(log_alpha: Array, at: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        z, w, live = at
        ways = log_sum(log_alpha[:, None] + (W - w), 0)
        left, largest = without_largest(ways + z)
        return jnp.where(live, left, log_alpha), (ways, jnp.where(live, largest, 0))

    last, (others, more) = meshes.scan(one_step, log_alpha, ((Z - by_Z[:, None])[1:], by_W[1:-1], live[1:]))
    C = log_sum(last + (end - by_W[-1])) + jnp.sum(more) + largest[0]
    return jnp.concatenate([first[None], others]), jnp.where(live[0], jnp.where(possible, C, jnp.inf), 0)


def _marginals(chain: _Chain, log_ways: Array) -> tuple[Float[Array, "time tags"], Float[Array, "tags tags"]]:
    """γ_t − e_{y_t} at each step, and Σ_t (Ξ_t − e_{y_t} e_{y_{t+1}}ᵀ); 0 where the labels are impossible.

    From the last step to the first: γ_t = Q_t γ_{t+1}, Q_t(i, j) the share of tag i in all ways to tag j behind it.
    """
    Z, labels, live, last, W, _, end = chain
    by_Z, by_W, possible = _of_labels(chain)
    log_alpha, _ = jax.vmap(without_largest)(log_ways + (Z - by_Z[:, None]))
    reached = jnp.where(log_ways == -jnp.inf, 0, log_ways)
    at_end = _softmax(jnp.sum(jnp.where(last[:, None], log_alpha, 0), axis=0) + end)
    is_label = labels[:, None] == jnp.arange(W.shape[0])[None]

    def one_step(carry: tuple[Array, Array], at: tuple[Array, ...]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        (later, dW), (before, reached, w, is_y, is_before, live, last) = carry, at
        gamma = jnp.where(last, at_end, later)
        Xi = jnp.exp(before[:, None] + (W - w) - reached[None]) * gamma[None]
        pair = is_before[:, None] & is_y[None]
        others = jnp.where(live & ~pair, Xi, 0)
        earlier = jnp.sum(others, axis=1) + jnp.sum(jnp.where(pair, Xi, 0), axis=1)
        carry = jnp.where(live, earlier / jnp.sum(earlier), later), dW + others
        return carry, (gamma, jnp.sum(others))

    steps = (log_alpha[:-1], reached[1:], by_W[1:-1], is_label[1:], is_label[:-1], live[1:], last[1:])
    (later, dW), (gamma, missed) = meshes.scan(one_step, (jnp.zeros_like(end), jnp.zeros_like(W)), steps, reverse=True)
    dW = dW.at[labels[:-1], labels[1:]].add(-missed)
    gamma = jnp.concatenate([jnp.where(last[0], at_end, later)[None], gamma])
    others = jnp.where(is_label, 0, gamma)
    dZ = jnp.where(is_label, -jnp.sum(others, axis=1, keepdims=True), others)
    possible = possible & live[0]
    return jnp.where(possible, dZ, 0), jnp.where(possible, dW, 0)


def _softmax(logits: Vector) -> Vector:
    """Of one row; NaN where all are −∞."""
    E = jnp.exp(logits - jnp.max(logits))
    return E / jnp.sum(E)
