"""Training a language model in a run's folder, and the measures of it."""

import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study
from jaxtyping import Array, PyTree

import handgrad as hg
from handgrad.checks import path_name
from handgrad.layers import Layer, Loss
from handgrad.training import Loader, Run, TrainState, evaluation, fit_run, init_state, train_step
from handgrad.training.evaluation import Metrics, Pair
from language.options import Corpus, Training, warmup_of
from language.reports import compared, report
from language.sampling import sampler

MEASURED = 256  # windows of the held-out text, evenly spaced, that are measured after each epoch; at the end all are
MAY_CHANGE = ("minutes", "device", "prompt", "sample", "temperature")  # options, when a run is resumed


class Subject(NamedTuple):
    """What is trained.

    Attributes:
      title: for tables and plots.
      model: bytes (batch, tokens) to logits.
      params: what it starts from; None is `model.init`'s.
      learned: params -> a mask of those that are trained; None trains all.
    """

    title: str
    model: Layer
    params: PyTree = None
    learned: Callable[[PyTree], PyTree] | None = None


def run(subject: Subject, corpus: Corpus, options: Training, progress: bool = True) -> dict[str, Any]:
    """Train, measure all of the held-out text, sample: the figures, and the parameters as "params"."""
    model, loss, size = subject.model, per_byte(options.tokens), options.batch
    optimizer = make_optimizer(options, subject.learned)
    init_key, fit_key, sample_key = jax.random.split(jax.random.key(options.seed), 3)
    params = jax.jit(model.init)(init_key, corpus.train[0][:1]) if subject.params is None else subject.params
    state = init_state(params, optimizer, fit_key)
    loader = Loader(corpus.train, size, seed=options.seed, steps=options.steps)
    dtype = None if options.compute_dtype == "float32" else jnp.dtype(options.compute_dtype)
    if options.compare:
        ways = {by: train_step(model, loss, optimizer, by=by, compute_dtype=dtype) for by in ("hand", "autodiff")}
        return compared(ways, state, loader, options.compare)

    config = {**study.settings(options), "text": corpus.identity, "start": checksum(subject.params)}
    folder = Run(options.out, config, may_change=MAY_CHANGE)
    clock = Clock(options.minutes)
    state, _ = fit_run(
        folder,
        model,
        loss,
        optimizer,
        state,
        loader,
        epochs=options.epochs,
        evaluate=evaluation(model, loss, {"held_out": evenly(corpus.held_out, MEASURED)}, batch_size=size),
        callbacks=[clock],
        progress=progress,
        by=options.by,
        compute_dtype=dtype,
    )
    whole = evaluation(model, loss, {"held_out": corpus.held_out}, batch_size=size)
    cost = whole(state.params)["held_out_loss"]
    before = {} if subject.params is None else {"nats per byte before": whole(params)["held_out_loss"]}
    figures = {
        **before,
        "nats per byte": cost,
        "bits per byte": cost / np.log(2),
        "steps": int(state.step),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "seconds": clock.seconds,
        "bytes per second": clock.epochs_per_second * options.steps * size * options.tokens,
    }
    report(subject.title, options, figures, sampler(model, options)(state.params, sample_key))
    return {**figures, "params": state.params}


class Clock:
    """A callback of `fit` that takes the time, and says when it is over."""

    def __init__(self, minutes: float | None):
        self._minutes, self._start = minutes, time.perf_counter()
        self._ends: list[float] = []

    def __call__(self, state: TrainState, metrics: Metrics) -> bool:
        """After each epoch: whether so many minutes have passed."""
        self._ends.append(time.perf_counter())
        return self._minutes is not None and self.seconds >= 60 * self._minutes

    @property
    def seconds(self) -> float:
        """Until the end of the last epoch, from the beginning or from where the run was resumed."""
        return self._ends[-1] - self._start if self._ends else 0.0

    @property
    def epochs_per_second(self) -> float:
        """Without the first, in which steps are compiled; 0 where there are no others."""
        return (len(self._ends) - 1) / (self._ends[-1] - self._ends[0]) if len(self._ends) > 1 else 0.0


def per_byte(tokens: int) -> Loss:
    """Cross-entropy of each byte, in nats: the mean over a window of so many."""
    of_window = hg.softmax_cross_entropy()

    def forward(prediction: PyTree, target: PyTree) -> tuple[Array, PyTree]:
        losses, residuals = of_window.forward(prediction, target)
        return losses / tokens, residuals

    return Loss(forward, lambda residuals, dloss: of_window.backward(residuals, dloss / tokens))


def make_optimizer(options: Training, learned: Callable[[PyTree], PyTree] | None) -> optax.GradientTransformation:
    """AdamW on gradients of norm 1 at most; parameters that aren't learned stay as they are."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, warmup_of(options), options.epochs * options.steps, options.learning_rate / 10
    )
    adamw = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.99, weight_decay=options.weight_decay, mask=is_matrix)
    )
    if learned is None:
        return adamw

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda learns: "learned" if learns else "frozen", learned(params))

    return optax.multi_transform({"learned": adamw, "frozen": optax.set_to_zero()}, labels)


def is_matrix(params: PyTree) -> PyTree:
    """A mask of the parameters with upper-case names, the weight matrices: no bias, no norm's scale, no table."""
    return jax.tree.map_with_path(lambda path, leaf: path_name(path).rpartition(".")[2].isupper(), params)


def evenly(data: Pair, count: int) -> Pair:
    """At most so many examples, evenly spaced."""
    rows = np.linspace(0, len(data[0]) - 1, min(count, len(data[0]))).astype(int)
    return data[0][rows], data[1][rows]


def checksum(params: PyTree) -> int:
    """Tells parameters from others."""
    return zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)))
