"""How well does LeNet-5 read MNIST's digits, trained by hand-written gradients on the first 10,000 images?

Every gradient comes from the rules of handgrad; jax.grad is not called. The figures go to a JSON file.

    python experiments/mnist_lenet.py --data-dir DATA/mnist
    python experiments/mnist_lenet.py --data-dir DATA/mnist --out docs/results/mnist_lenet.json
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import study
import tyro

import handgrad as hg
from handgrad.checks import check_positive
from handgrad.models.convnet import Lenet5Config, lenet5
from handgrad.training import correct, evaluation, fit, init_state
from handgrad.training.digits import Split, load_mnist


@dataclass(frozen=True)
class MnistLenet:
    """Train LeNet-5 on MNIST by hand-written backpropagation."""

    data_dir: Path
    """A folder with MNIST's four IDX files, gzipped or not."""
    model: tyro.conf.OmitArgPrefixes[Lenet5Config] = field(default_factory=Lenet5Config)
    images: int = 10_000
    """The first so many training images."""
    epochs: int = 12
    """Passes over them."""
    batch: int = 32
    """Examples in a mini-batch."""
    learning_rate: float = 2e-3
    """Of Adam; it falls to 0 along a cosine."""
    seed: int = 0
    """Of the initial parameters and the order of examples."""
    out: Path = Path("runs/mnist_lenet.json")
    """A JSON file for the figures."""


def run(options: MnistLenet, progress: bool = True) -> dict[str, Any]:
    """Train, and tell the figures."""
    study.begin("mnist_lenet", options, "images", "epochs", "batch")
    check_positive("mnist_lenet", "learning_rate", options.learning_rate)
    train, test = (as_images(split) for split in load_mnist(options.data_dir))
    train = Split(*(array[: options.images] for array in train))
    model = lenet5(options.model)
    steps = options.epochs * -(-len(train.labels) // options.batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(options.learning_rate, max(steps, 1)))

    start, processor_start = time.perf_counter(), time.process_time()
    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    state = init_state(jax.jit(model.init)(init_key, train.x[:1]), optimizer, fit_key)
    loss = hg.softmax_cross_entropy()
    epochs = fit(
        model,
        loss,
        optimizer,
        state,
        train,
        batch_size=options.batch,
        epochs=options.epochs,
        evaluate=evaluation(model, loss, {"test": test}, {"accuracy": correct}, batch_size=1000),
        progress=progress,
    )
    history = [metrics for _, metrics in epochs]
    figures = {
        "test_accuracy": history[-1]["test_accuracy"],
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "history": history,
    }
    title = f"LeNet-5, {options.model.activation}, {options.model.pool} pools, {options.epochs} epochs"
    table = study.table(title, "training images", "test images", "test accuracy", "seconds", "processor seconds")
    counts = f"first {len(train.labels):,}", f"{len(test.labels):,}", f"{100 * figures['test_accuracy']:.2f} %"
    table.add_row(*counts, *(f"{figures[name]:.0f}" for name in ("seconds", "processor_seconds")))
    study.publish(options.out, options, table, **figures)
    return figures


def as_images(split: Split) -> Split:
    """(n, height × width) as (n, height, width, 1), from [0, 1] to about mean 0 and variance 1."""
    side = int(np.sqrt(split.x.shape[1]))
    return Split(((split.x - 0.1307) / 0.3081).reshape(-1, side, side, 1), split.labels)


if __name__ == "__main__":
    study.main(run, MnistLenet)
