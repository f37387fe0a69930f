"""Whole training steps, the state given away: two-phase updates by rows, and the overhead on a single weight."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from handgrad import layers
from handgrad.cli.bench.workload import Program, Workload, integers, normal, started
from handgrad.training import init_state, train_step, two_phase_step


class Sgd(NamedTuple):
    """Gradient descent as an optax transformation, written out: the package imports optax for training alone."""

    init: Callable[[PyTree], tuple[()]]
    update: Callable[..., tuple[PyTree, tuple[()]]]


RATE, CLIP = 1e-3, 1.0
SGD: Any = Sgd(lambda params: (), lambda grads, state, params=None: (jax.tree.map(lambda g: -RATE * g, grads), ()))


def dense(rows: int, width: int, depth: int) -> Program:
    """A deep stack of x + tanh(x W + b), its gradient clipped to a global norm."""
    model = layers.repeat(layers.residual(layers.chain(layers.linear(width), layers.tanh())), depth)
    return _two_phase(model, layers.squared_error(), normal(1, rows, width), normal(2, rows, width), CLIP)


def convolutional(rows: int, width: int, size: int) -> Program:
    """Two residual convolutions, their gradient clipped to a global norm."""
    block = layers.residual(layers.chain(layers.convolution(width, 3), layers.tanh()))
    shape = rows, size, size, width
    return _two_phase(layers.chain(block, block), layers.squared_error(), normal(1, *shape), normal(2, *shape), CLIP)


def embedding(rows: int, vocabulary: int, width: int, tokens: int) -> Program:
    """A large table and a linear layer behind it."""
    table = layers.embedding(vocabulary, width, dtype="float32")
    model = layers.chain(table, layers.flatten(), layers.linear(10))
    return _two_phase(
        model, layers.softmax_cross_entropy(), integers(1, vocabulary, rows, tokens), integers(2, 10, rows)
    )


def _two_phase(model: layers.Layer, loss: layers.Loss, x: Any, target: Any, clip: float | None = None) -> Program:
    state = init_state(started(model, x), SGD)
    return Program(two_phase_step(model, loss, SGD, clip), None, (state, x, target), donate=(0,))


def single_weight() -> Program:
    """One step of a linear layer of one weight: what is measured is the overhead."""
    model = layers.linear(1, bias=False)
    x, target = normal(1, 1, 1), normal(2, 1, 1)
    state = init_state(started(model, x), SGD)
    return Program(train_step(model, layers.squared_error(), SGD), None, (state, x, target), donate=(0,))


ROWS = (8, 64, 512)
WORKLOADS = (
    *(
        Workload(
            f"two-phase-dense-{rows}",
            dense,
            {"rows": rows, "width": 512, "depth": 8},
            {"rows": 3, "width": 4, "depth": 2},
            ("step_dense",),
        )
        for rows in ROWS
    ),
    *(
        Workload(
            f"two-phase-convolution-{rows}",
            convolutional,
            {"rows": rows, "width": 32, "size": 8},
            {"rows": 2, "width": 3, "size": 4},
            ("step_convolution",),
        )
        for rows in ROWS
    ),
    *(
        Workload(
            f"two-phase-embedding-{rows}",
            embedding,
            {"rows": rows, "vocabulary": 50_000, "width": 64, "tokens": 8},
            {"rows": 3, "vocabulary": 7, "width": 2, "tokens": 4},
            ("step_embedding",),
        )
        for rows in ROWS
    ),
    Workload("overhead-single-weight", single_weight, {}, {}, ("step_single_weight",)),
)
