"""crf, crf_loss and crf_decode: scores of tags that follow one another, learned beside a network's of each step."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from handgrad import meshes, rules
from handgrad.checks import InputError, check_array, check_params, describe
from handgrad.layers.layer import Layer, Loss
from handgrad.layers.linear.linear import Initializer
from handgrad.layers.sequences.sequences import Sequences
from handgrad.rules.losses.crf import CrfLossResiduals

__all__ = ["CrfParams", "CrfScores", "crf", "crf_decode", "crf_loss"]


class CrfParams(NamedTuple):
    """Parameters of `crf`.

    Attributes:
      W: (tags, tags) W_ij is the score of tag j behind tag i.
      start, end: (tags,) scores of the first and of the last tag, or None.
    """

    W: Array
    start: Array | None = None
    end: Array | None = None


class CrfScores(NamedTuple):
    """What a labeling scores, for `crf_loss`. In its cotangent, W, start and end are factors.

    Attributes:
      Z: of each tag at each step.
      W, start, end: of CrfParams.
      lengths: the steps of each example; None is all.
    """

    Z: Float[Array, "batch time tags"]
    W: Float[Array, "tags tags"]
    start: Float[Array, " tags"] | None = None
    end: Float[Array, " tags"] | None = None
    lengths: Integer[Array, " batch"] | None = None


def crf(
    *,
    ends: bool = True,
    init_W: Initializer = jax.nn.initializers.normal(0.1),
    init_ends: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """The last layer under `crf_loss`: scores of each step, (batch, time, tags) or Sequences of them, as CrfScores.

    Args:
      ends: False omits `start` and `end`.
      init_W, init_ends: initializers, (key, shape, dtype) -> array; parameters get the dtype of `init`'s x.
    Derivation: docs/derivations/losses/crf.md
    """

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct | Sequences) -> CrfParams:
        X = x.X if isinstance(x, Sequences) else x
        check_array("crf", "x", X, min_ndim=2)
        dtype, tags = jax.dtypes.canonicalize_dtype(X.dtype), X.shape[-1]
        key_W, *keys = jax.random.split(key, 3)
        start, end = (init_ends(k, (tags,), dtype) if ends else None for k in keys)
        return CrfParams(init_W(key_W, (tags, tags), dtype), start, end)

    def forward(params: CrfParams, x: Array | Sequences, key: PRNGKeyArray | None = None) -> tuple[CrfScores, bool]:
        check_params("crf", params, CrfParams)
        if isinstance(x, Sequences):
            return CrfScores(x.X, *params, x.lengths), True
        return CrfScores(x, *params), False

    def backward(residuals: bool, dy: CrfScores) -> tuple[Array | Sequences, CrfParams]:
        if not isinstance(dy, CrfScores):
            raise InputError(f"crf: dy must be CrfScores, got {describe(dy)}")
        return Sequences(dy.Z) if residuals else dy.Z, CrfParams(dy.W, dy.start, dy.end)

    return Layer(init, forward, backward)


def crf_loss(*, residuals: Literal["save", "recompute"] = "save") -> Loss:
    """C_b = −log p(labels | scores), from the CrfScores of a `crf` and labels, integers (batch, time).

    Args:
      residuals: "save" keeps half of the recursion, "recompute" computes it again.
    Derivation: docs/derivations/losses/crf.md
    """
    rule = rules.crf_loss.with_options(residuals=residuals)

    def forward(prediction: CrfScores, target: Array) -> tuple[Array, CrfLossResiduals]:
        if not isinstance(prediction, CrfScores):
            raise InputError(f"crf_loss: prediction must be CrfScores, as `crf` makes them, got {describe(prediction)}")
        Z, W, start, end, lengths = prediction
        return rule.forward(Z, W, start, end, target, lengths)

    def backward(kept: CrfLossResiduals, dloss: Float[Array, " batch"]) -> CrfScores:
        return CrfScores(*rule.backward(kept, dloss)[:4])

    def counts(kept: CrfLossResiduals) -> Bool[Array, "batch time"]:
        steps = jnp.expand_dims(jnp.arange(kept.Z.shape[1]), 0)
        lengths = kept.Z.shape[1] if kept.lengths is None else jnp.expand_dims(jnp.asarray(kept.lengths), 1)
        return jnp.broadcast_to(steps < lengths, kept.Z.shape[:2])

    return Loss(forward, backward, counts=counts)


def crf_decode(scores: CrfScores) -> Integer[Array, "batch time"]:
    """The tags of the highest score, by Viterbi's recursion; −1 in padding.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> Z, W = jnp.array([[[0.0, 1.0], [2.0, 0.0]]]), jnp.array([[0.0, 0.0], [-5.0, 0.0]])
    >>> hg.crf_decode(hg.CrfScores(Z, W))
    Array([[0, 0]], dtype=int32)
    """
    Z, W, start, end, lengths = scores
    batch, time, tags = Z.shape
    ends = jnp.full(batch, time) if lengths is None else jnp.asarray(lengths)
    live = jnp.expand_dims(jnp.arange(time), 0) < jnp.expand_dims(ends, 1)
    start, end = (jnp.zeros(tags, Z.dtype) if v is None else v for v in (start, end))

    def of_one(Z: Array, live: Array) -> Array:
        def one_step(best: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            z, live = at
            ways = best[:, None] + W
            return jnp.where(live, jnp.max(ways, axis=0) + z, best), jnp.argmax(ways, axis=0)

        def one_back(tag: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            came_from, live = at
            before = jnp.where(live, came_from[tag], tag)
            return before, tag

        best, came_from = meshes.scan(one_step, start + Z[0], (Z[1:], live[1:]))
        first, others = meshes.scan(one_back, jnp.argmax(best + end), (came_from, live[1:]), reverse=True)
        return jnp.where(live, jnp.concatenate([first[None], others]), -1).astype(jnp.int32)

    return meshes.along_batch(jax.vmap(of_one), Z, live)
