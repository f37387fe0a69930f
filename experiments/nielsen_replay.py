"""Does a published run come out again, digit for digit? Nielsen's "Neural Networks and Deep Learning", chapter 3.

His [784, 30, 10] sigmoid network overfits the first 1,000 training images of MNIST: cross-entropy, learning rate 0.5,
mini-batches of 10, 400 epochs. `overfitting.json`, published beside his book, has epoch by epoch the cost and the
accuracy on the test images and on the training images. Here his numbers come out of gradients by hand, in float64 and
in one compiled program, and out of plain NumPy, which is timed beside it.

    python experiments/nielsen_replay.py --data-dir DATA/mnist --published DATA/nielsen/overfitting.json
"""

import json
import random
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import study
from baselines import nielsen as plain

import handgrad as hg
from handgrad.checks import InputError
from handgrad.training.digits.data import MNIST, idx_file, read_idx

SIZES = (784, 30, 10)
TRAINING, BATCH, RATE = 1000, 10, 0.5
SEED = 12345678

MODEL = hg.chain(hg.linear(30), hg.sigmoid(), hg.linear(10), hg.sigmoid())
LOSS = hg.binary_cross_entropy()


@dataclass(frozen=True)
class NielsenReplay:
    """Replay a run that Michael Nielsen published, epoch by epoch, by hand-written backpropagation."""

    data_dir: Path
    """A folder with MNIST's four IDX files, gzipped or not."""
    published: Path
    """His overfitting.json: lists of test cost, test accuracy, training cost and training accuracy."""
    epochs: int = 400
    """The first so many epochs."""
    out: Path = Path("runs/nielsen_replay.json")
    """A JSON file for the figures."""


class Images(NamedTuple):
    """Float64 images as rows, and one-hot labels."""

    x: Any
    y: Any


def run(options: NielsenReplay) -> dict[str, Any]:
    """Train twice, compare with what was published, and tell the figures."""
    study.begin("nielsen_replay", options, "epochs")
    published = read_published(options)
    train, test = (load(options.data_dir, split) for split in ("train", "test"))
    train = Images(train.x[:TRAINING], train.y[:TRAINING])
    orders = shuffled_orders(options.epochs)
    with jax.enable_x64():
        start = time.perf_counter()
        replay = jax.jit(by_hand).lower(orders, train, test).compile()
        compiling = time.perf_counter() - start
        seconds, processor, by_hand_columns = timed(replay, orders, train, test)
    plain_seconds, plain_processor, plain_columns = timed(in_numpy, orders, train, test)

    figures = {
        "compile seconds": compiling,
        "by hand": {"seconds": seconds, "processor seconds": processor, **differences(by_hand_columns, published)},
        "NumPy": {
            "seconds": plain_seconds,
            "processor seconds": plain_processor,
            **differences(plain_columns, published),
        },
    }
    headings = ("seconds", "processor seconds", "largest cost difference", "accuracies that differ")
    table = study.table(f"{options.epochs} published epochs", "", *headings)
    for way in ("by hand", "NumPy"):
        found = figures[way]
        table.add_row(way, *(f"{found[name]:.3g}" if "accura" not in name else str(found[name]) for name in headings))
    study.publish(options.out, options, table, **figures)
    return figures


def by_hand(orders, train, test):
    """The four lists, by hand-written gradients: a scan over epochs, in it one over mini-batches."""
    gradient, value = hg.grad(MODEL, LOSS), hg.objective(MODEL, LOSS, has_aux=True)

    def step(params, batch):
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient(params, *batch)), None

    def evaluate(params, images):
        cost, prediction = value(params, *images)
        return cost, jnp.sum(jnp.argmax(prediction, axis=1) == jnp.argmax(images.y, axis=1))

    def epoch(params, order):
        batches = jax.tree.map(lambda rows: rows[order].reshape(-1, BATCH, rows.shape[1]), tuple(train))
        params, _ = jax.lax.scan(step, params, batches)
        return params, (*evaluate(params, test), *evaluate(params, train))

    (first, last) = (hg.LinearParams(jnp.asarray(W), jnp.asarray(b)) for W, b in initial_params())
    return jax.lax.scan(epoch, (first, (), last, ()), orders)[1]


def in_numpy(orders, train, test):
    """The four lists, in plain NumPy."""
    params, rows = initial_params(), []
    for order in orders:
        params = plain.train_epoch(params, train.x[order], train.y[order], BATCH, RATE)
        rows.append((*plain.evaluate(params, *test), *plain.evaluate(params, *train)))
    return [np.array(column) for column in zip(*rows, strict=True)]


def initial_params():
    """His draws, in his order: [(W, b)] with W of (n_in, n_out)."""
    rng = np.random.RandomState(SEED)

    def draw():
        biases = [rng.randn(n_out, 1) for n_out in SIZES[1:]]
        weights = [rng.randn(n_out, n_in) for n_in, n_out in pairwise(SIZES)]
        return [(w.T, b[:, 0]) for w, b in zip(weights, biases, strict=True)]

    draw()  # his default, divided by √n_in, which he then replaces
    return draw()


def shuffled_orders(epochs: int) -> np.ndarray:
    """Each epoch's order of the examples, shuffled on from the epoch before as Python 2 did it: (epochs, TRAINING)."""
    rng, order, orders = random.Random(SEED), list(range(TRAINING)), []
    for _ in range(epochs):
        for i in reversed(range(1, TRAINING)):
            j = int(rng.random() * (i + 1))
            order[i], order[j] = order[j], order[i]
        orders.append(list(order))
    return np.array(orders)


def load(folder: Path, split: str) -> Images:
    """Images as his pickle holds them, uint8 / 256 in float32, here widened to float64."""
    images_name, labels_name = MNIST[split]
    images, labels = read_idx(idx_file(folder, images_name), 3), read_idx(idx_file(folder, labels_name), 1)
    pixels = images.reshape(len(images), -1) / np.float32(256)
    return Images(pixels.astype(np.float64), np.eye(10)[labels])


def read_published(options: NielsenReplay) -> list[np.ndarray]:
    """His four lists, so many epochs of each."""
    try:
        columns = json.loads(options.published.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"nielsen_replay: {options.published} can't be read: {error}") from None
    if len(columns) != 4 or any(len(column) < options.epochs for column in columns):
        found = " and ".join(str(len(column)) for column in columns)
        raise InputError(f"nielsen_replay: published must be four lists of {options.epochs} epochs, got {found}")
    return [np.array(column[: options.epochs]) for column in columns]


def timed(function, *arguments) -> tuple[float, float, list[np.ndarray]]:
    """Seconds, processor seconds, and the result."""
    start, processor = time.perf_counter(), time.process_time()
    columns = [np.asarray(column) for column in function(*arguments)]
    return time.perf_counter() - start, time.process_time() - processor, columns


def differences(columns: list[np.ndarray], published: list[np.ndarray]) -> dict[str, Any]:
    """How far costs are from those published, and how many accuracies aren't the same."""
    costs = [float(np.max(np.abs(columns[i] - published[i]))) for i in (0, 2)]
    return {
        "largest cost difference": max(costs),
        "accuracies that differ": int(sum(np.sum(columns[i] != published[i]) for i in (1, 3))),
    }


if __name__ == "__main__":
    study.main(run, NielsenReplay)
