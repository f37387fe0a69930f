"""The cross-entropy of a chunk of logits against labels, and what a row of it must keep for the cotangent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.rules.losses.softmax_cross_entropy import capped

Array = jax.Array


class Options(NamedTuple):
    """The rule's options, as the factors keep them: hashable."""

    chunk: int
    label_smoothing: float
    ignore_index: int | None
    z_loss: float
    softcap: float | None


class Kept(NamedTuple):
    """Three numbers for each row of logits, (rows,), as LinearCrossEntropyResiduals describes them."""

    M: Array
    total: Array
    rest: Array


def loss_of_logits(Z: Array, Y: Array, options: Options) -> tuple[Array, Kept]:
    """C (rows,) of logits (rows, n) against labels (rows,), and what the cotangent needs of each row."""
    S, at_label = capped(Z, options.softcap), _at_label(Y, Z)
    M, s = jnp.max(S, axis=1), jnp.sum(jnp.where(at_label, S, 0), axis=1)
    rest = jnp.sum(jnp.where(at_label, 0, jnp.exp(S - jnp.expand_dims(M, 1))), axis=1)
    excess = rest + jnp.expm1(s - M)  # total − 1
    log_total = jnp.log1p(excess)
    C = (1 - options.label_smoothing) * (M - s + log_total)
    if options.label_smoothing:
        share = options.label_smoothing / S.shape[1]  # of a class; before the sum, which may be too large without
        C = C + jnp.sum(share * (jnp.expand_dims(M, 1) - S), axis=1) + options.label_smoothing * log_total
    if options.z_loss:
        lse = M + log_total
        C = C + options.z_loss * lse * lse
    return _counted(C, Y, Z, options.ignore_index), Kept(M, 1 + excess, rest)


def cotangent_of_logits(Z: Array, Y: Array, kept: Kept, dC: Array, options: Options) -> Array:
    """dZ (rows, n), dC (rows,) being the cotangent of C."""
    M, total, rest = kept
    S, at_label = capped(Z, options.softcap), _at_label(Y, Z)
    E = jnp.exp(S - jnp.expand_dims(M, 1))
    dZ = jnp.expand_dims(dC / total, 1) * jnp.where(at_label, -jnp.expand_dims(rest, 1), E)
    if options.label_smoothing:
        dZ = dZ + jnp.expand_dims(dC * options.label_smoothing, 1) * (at_label - 1 / S.shape[1])
    if options.z_loss:
        dZ = dZ + jnp.expand_dims(dC / total * 2 * options.z_loss * (M + jnp.log(total)), 1) * E
    if options.softcap is not None:
        shrink = jnp.exp(-2 * jnp.abs(Z / options.softcap))
        dZ = dZ * (4 * shrink / (1 + shrink) ** 2)  # 1 − tanh², with no difference of 1 and what rounds to it
    return _counted(dZ, Y, Z, options.ignore_index)


def _at_label(Y: Array, S: Array) -> Array:
    """Where each row's label is among its logits: booleans like S."""
    return jnp.expand_dims(Y, 1) == jnp.expand_dims(jnp.arange(S.shape[1]), 0)


def _counted(A: Array, Y: Array, S: Array, ignore_index: int | None) -> Array:
    """A, row by row: 0 where it is to be ignored, whatever its logits S, and NaN for any other label of no class."""
    labels = jnp.expand_dims(Y.astype(jnp.promote_types(Y.dtype, jnp.int32)), tuple(range(1, A.ndim)))
    A = jnp.where((labels >= 0) & (labels < S.shape[1]), A, jnp.nan)
    return A if ignore_index is None else jnp.where(labels == ignore_index, 0, A)
