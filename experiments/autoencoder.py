"""How many numbers does a handwritten digit need?

An autoencoder of scikit-learn's 8 × 8 digits: an encoder to a few numbers and a decoder back to 64 pixels, trained on
squared error, beside the best linear one (the first principal components).

    python experiments/autoencoder.py
    python experiments/autoencoder.py --code 8 --epochs 100 --out runs/autoencoder8
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import study
import training_run
from matplotlib.figure import Figure
from rich.console import Console

import handgrad as hg
from handgrad.checks import check_count, check_positive
from handgrad.training import evaluation
from handgrad.training.digits import load_digits


@dataclass(frozen=True)
class Options:
    """Compress handwritten digits to a few numbers and back."""

    code: int = 4
    """Numbers between the encoder and the decoder."""
    hidden: int = 128
    """Features of the hidden layer on either side."""
    epochs: int = 60
    """Passes over the training set."""
    batch: int = 32
    """Examples in a mini-batch."""
    learning_rate: float = 2e-3
    """Of Adam."""
    seed: int = 0
    """Of the initial parameters and the order of examples."""
    device: str | None = None
    """cpu, gpu or tpu; without it JAX's default."""
    out: Path = Path("runs/autoencoder")
    """The run's folder; a run with the same options is resumed."""


def run(options: Options, progress: bool = True) -> dict[str, float]:
    """Train; the root mean square error of a pixel on the test set, by the network and by principal components."""
    for name in ("code", "hidden", "epochs", "batch"):
        check_count("autoencoder", name, getattr(options, name))
    check_positive("autoencoder", "learning_rate", options.learning_rate)
    train, test = load_digits()
    model = hg.chain(
        encoder=hg.mlp((64, options.hidden, options.code), hg.gelu()),
        decoder=hg.mlp((options.code, options.hidden, 64), hg.gelu()),
    )
    loss = hg.squared_error()
    with training_run.on_device(options.device):
        state, _ = training_run.train(
            options,
            model,
            loss,
            optax.adam(options.learning_rate),
            (train.x, train.x),
            like=train.x[:1],
            batch_size=options.batch,
            evaluate=evaluation(model, loss, {"test": (test.x, test.x)}),
            progress=progress,
        )
        found = np.asarray(jax.jit(model.forward)(state.params, test.x)[0])
    mean = train.x.mean(axis=0)
    _, _, axes = np.linalg.svd(train.x - mean, full_matrices=False)
    linear = mean + (test.x - mean) @ axes[: options.code].T @ axes[: options.code]
    errors = {
        name: float(np.sqrt(np.mean((x - test.x) ** 2))) for name, x in (("network", found), ("components", linear))
    }
    plot(options.out / "digits.png", test.x, {"the network": found, "principal components": linear}, options.code)
    console = Console()
    console.print(
        f"{options.code} numbers a digit: a pixel in [0, 1] is off by {errors['network']:.3f} (root mean square), by "
        f"{errors['components']:.3f} from as many principal components",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"plot: {options.out / 'digits.png'}", soft_wrap=True)
    return errors


def plot(path: Path, x: np.ndarray, rows: dict[str, np.ndarray], code: int, columns: int = 12) -> None:
    """The first test digits, and what each way makes of them."""
    figure = Figure(figsize=(columns, 1.25 * (len(rows) + 1)), layout="constrained")
    panels = figure.subplots(len(rows) + 1, columns)
    for line, (name, images) in zip(panels, {"digits": x, **rows}.items(), strict=True):
        for axes, image in zip(line, images, strict=False):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    figure.suptitle(f"test digits, from {code} numbers each")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    study.main(run, Options)
