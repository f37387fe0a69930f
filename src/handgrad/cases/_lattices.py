"""Rows of losses over a lattice of paths, node by node or path by path, and of Sinkhorn's, in scaling form."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Rng, edge


def transducer_loss(Z: Array, labels: Array, input_lengths: Array, label_lengths: Array, blank: int = 0) -> Array:
    """Node after node, in logarithms, the whole lattice; each example's end is picked from all of them."""
    _, time, count, classes = Z.shape
    log_P = jax.nn.log_softmax(Z.astype(jnp.promote_types(Z.dtype, jnp.float32)))
    emitted = jnp.eye(classes, dtype=log_P.dtype)[jnp.clip(labels, 0, classes - 1)]
    log_y = jnp.einsum("btuk,buk->btu", log_P[:, :, :-1], emitted)
    log_b = log_P[..., blank]
    nodes: dict[tuple[int, int], Array] = {(0, 0): jnp.zeros_like(log_b[:, 0, 0])}
    for t, u in [(t, u) for t in range(time) for u in range(count) if t + u]:
        ways = [nodes[t - 1, u] + log_b[:, t - 1, u]] if t else []
        ways += [nodes[t, u - 1] + log_y[:, t, u - 1]] if u else []
        nodes[t, u] = jnp.logaddexp(*ways) if len(ways) == 2 else ways[0]
    ends = jnp.stack([jnp.stack([nodes[t, u] + log_b[:, t, u] for u in range(count)]) for t in range(time)])
    return -ends[input_lengths - 1, label_lengths, jnp.arange(len(Z))].astype(Z.dtype)


def lattice(labels: Any, input_lengths: Any, label_lengths: Any, time: int, classes: int, scale: float = 1.0) -> Draw:
    """Normal logits of every node, and these labels and lengths."""
    labels = np.array(labels, int).reshape(len(labels), -1)
    shape = len(labels), time, labels.shape[1] + 1, classes
    return lambda rng: (scale * rng.standard_normal(shape), labels, np.array(input_lengths), np.array(label_lengths))


LAST_BLANK = {"blank": 2, "residuals": "recompute"}

TRANSDUCER = [
    Case(
        rules.transducer_loss,
        "lengths",
        lattice([[1, 2], [2, 2], [3, 0], [0, 0]], [3, 2, 1, 3], [2, 2, 1, 0], 3, 4),
        transducer_loss,
    ),
    edge(
        rules.transducer_loss,
        "last-blank",
        lattice([[0, 1], [1, 0]], [2, 1], [2, 2], 2, 3, 3.0),
        transducer_loss,
        LAST_BLANK,
    ),
    edge(rules.transducer_loss, "no-label", lattice([[], []], [1, 2], [0, 0], 2, 2), transducer_loss),
]


SEQUENCES = 20_000  # that a reference goes through one by one


def crf_loss(
    Z: Array, W: Array, start: Array | None, end: Array | None, labels: Array, lengths: Array | None = None
) -> Array:
    """The scores of all sequences of tags, one by one; those that have another tag than 0 in padding don't count."""
    (batch, time, tags), dtype = Z.shape, jnp.result_type(*(a for a in (Z, W, start, end) if a is not None))
    Z, W = (a.astype(jnp.promote_types(dtype, jnp.float32)) for a in (Z, W))
    if tags**time > SEQUENCES:
        raise ValueError(f"{tags} tags at {time} steps are too many sequences to write out")
    every = jnp.asarray(list(itertools.product(range(tags), repeat=time)))
    ends = jnp.full(batch, time) if lengths is None else lengths

    def score(y: Array, z: Array, length: Array) -> Array:
        t = jnp.arange(time)
        total = jnp.sum(jnp.where(t < length, z[t, y], 0)) + jnp.sum(jnp.where(t[1:] < length, W[y[:-1], y[1:]], 0))
        total = total if start is None else total + start[y[0]]
        return total if end is None else total + end[y[length - 1]]

    def of_one(z: Array, labels: Array, length: Array) -> Array:
        scores = jax.vmap(lambda y: score(y, z, length))(every)
        counts = jnp.all((every == 0) | (jnp.arange(time)[None] < length), axis=1)
        return jax.nn.logsumexp(jnp.where(counts, scores, -jnp.inf)) - score(labels, z, length)

    return jax.vmap(of_one)(Z, labels, ends).astype(dtype)


def chain(*, time: int, tags: int, batch: int = 3, lengths: Any = None, ends: bool = True) -> Draw:
    """Normal scores, labels, and these lengths."""

    def draw(rng: Rng) -> Arrays:
        start, end = rng.standard_normal((2, tags)) if ends else (None, None)
        scores = rng.standard_normal((batch, time, tags)), rng.standard_normal((tags, tags)), start, end
        return *scores, rng.integers(0, tags, (batch, time)), lengths if lengths is None else np.array(lengths)

    return draw


CRF = [
    Case(rules.crf_loss, "lengths", chain(time=4, tags=3, lengths=(4, 2, 1)), crf_loss),
    edge(rules.crf_loss, "no-ends", chain(time=3, tags=2, ends=False), crf_loss, {"residuals": "recompute"}),
    edge(rules.crf_loss, "one-step", chain(time=1, tags=2), crf_loss),
]


def sinkhorn(M: Array, a: Array | None = None, b: Array | None = None, *, epsilon: float, iterations: int) -> Array:
    """The potentials f and g by soft minima, jax.nn.logsumexp with weights: autodiff goes through every iteration."""
    dtype = jnp.result_type(*(p for p in (M, a, b) if p is not None))
    wide = jnp.promote_types(dtype, jnp.float32)
    M = M.astype(wide)
    a, b = (
        jnp.full((len(M), n), 1 / n, wide) if p is None else p.astype(wide)
        for p, n in zip((a, b), M.shape[1:], strict=True)
    )
    f, g = jnp.zeros_like(a), jnp.zeros_like(b)
    for _ in range(iterations):
        f = -epsilon * jax.nn.logsumexp((g[:, None] - M) / epsilon, axis=2, b=b[:, None])
        g = -epsilon * jax.nn.logsumexp((f[:, :, None] - M) / epsilon, axis=1, b=a[:, :, None])
    return (jnp.sum(a * f, axis=1) + jnp.sum(b * g, axis=1)).astype(dtype)


def transport(rng: Rng) -> Arrays:
    """Costs in 0 … 2 from four points to three, and weights."""
    return rng.uniform(0, 2, (3, 4, 3)), rng.dirichlet(np.ones(4), 3), rng.dirichlet(np.ones(3), 3)


SINKHORN = [
    Case(rules.sinkhorn, "weights", transport, sinkhorn, {"epsilon": 0.5, "iterations": 3}),
    edge(
        rules.sinkhorn,
        "equal",
        lambda rng: (transport(rng)[0], None, None),
        sinkhorn,
        {"epsilon": 1.0, "iterations": 1, "residuals": "recompute"},
    ),
]
