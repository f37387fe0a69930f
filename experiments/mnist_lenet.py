"""LeNet-5 on MNIST by hand-written gradients: the paper's network, Adam, the first training images.

Every gradient comes from the rules of handgrad; jax.grad is not called. With --result, the figures go to a JSON file.

    python experiments/mnist_lenet.py --data-dir DATA/mnist
    python experiments/mnist_lenet.py --data-dir DATA/mnist --result docs/results/mnist_lenet.json
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

from handgrad.checks import InputError, check_count, check_positive
from handgrad.layers import softmax_cross_entropy
from handgrad.models.convnet import Lenet5Config, lenet5
from handgrad.training import Split, fit, init_state, load_mnist, machine


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
    result: Path | None = None
    """A JSON file for the figures."""


def run(study: MnistLenet, progress: bool = True) -> dict[str, Any]:
    """Train, and tell the figures."""
    for name in ("images", "epochs", "batch"):
        check_count("mnist_lenet", name, getattr(study, name))
    check_positive("mnist_lenet", "learning_rate", study.learning_rate)
    train, test = (as_images(split) for split in load_mnist(study.data_dir))
    train = Split(*(array[: study.images] for array in train))
    model = lenet5(study.model)
    steps = study.epochs * (len(train.labels) // study.batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(study.learning_rate, max(steps, 1)))

    start, processor_start = time.perf_counter(), time.process_time()
    init_key, fit_key = jax.random.split(jax.random.key(study.seed))
    state = init_state(jax.jit(model.init)(init_key, train.x[:1]), optimizer)
    wrong = jax.jit(lambda params, x, labels: jnp.sum(jnp.argmax(model.forward(params, x)[0], axis=-1) != labels))

    def evaluate(params):
        """In parts, so that no array of all images' features is needed."""
        parts = zip(np.array_split(test.x, 10), np.array_split(test.labels, 10), strict=True)
        return {"test_accuracy": 1 - sum(int(wrong(params, *part)) for part in parts) / len(test.labels)}

    epochs = fit(
        model,
        softmax_cross_entropy(),
        optimizer,
        state,
        train,
        batch_size=study.batch,
        epochs=study.epochs,
        key=fit_key,
        evaluate=evaluate,
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
    report(study, figures, len(train.labels), len(test.labels))
    return figures


def as_images(split: Split) -> Split:
    """(n, height × width) as (n, height, width, 1), from [0, 1] to about mean 0 and variance 1."""
    side = int(np.sqrt(split.x.shape[1]))
    return Split(((split.x - 0.1307) / 0.3081).reshape(-1, side, side, 1), split.labels)


def report(study: MnistLenet, figures: dict[str, Any], trained: int, tested: int) -> None:
    """Say the figures, and write them where that is asked for."""
    console = Console()
    console.print(
        f"LeNet-5, {study.model.activation}, {study.model.pool} pools, first {trained:,} training images, "
        f"{study.epochs} epochs: test accuracy {100 * figures['test_accuracy']:.2f} % of {tested:,} in "
        f"{figures['seconds']:.0f} s ({figures['processor_seconds']:.0f} s of processor time)",
        highlight=False,
        soft_wrap=True,
    )
    if study.result:
        command = "python experiments/mnist_lenet.py --data-dir DATA/mnist --result docs/results/mnist_lenet.json"
        options = {name: value for name, value in asdict(study).items() if name not in ("data_dir", "result")}
        about = {"command": command, "machine": machine(), "options": options}
        study.result.write_text(json.dumps(about | figures, indent=2) + "\n")
        console.print(f"  {study.result}", soft_wrap=True)


if __name__ == "__main__":
    try:
        run(tyro.cli(MnistLenet))
    except InputError as error:
        sys.exit(f"mnist_lenet: {error}")
