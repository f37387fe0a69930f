"""Can hand-written backpropagation read handwritten digits?

scikit-learn's 8 × 8 digits by default, MNIST with --data-dir. Its folder, --out, gets metrics, checkpoints, a learning
curve and the worst-classified digits; the same command goes on with a run that was interrupted.

    python experiments/digits.py
    python experiments/digits.py --data-dir DATA/mnist --sizes 300 100 --epochs 10
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import study
import training_run
import tyro
from rich.console import Console

from handgrad.checks import InputError
from handgrad.training import Run
from handgrad.training.digits import Options, Trained, load_digits, load_mnist, train_classifier, write_report


@dataclass(frozen=True)
class Digits:
    """Train on handwritten digits by hand-written backpropagation."""

    training: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=Options)
    data_dir: Path | None = None
    """A folder with MNIST's four IDX files, gzipped or not; scikit-learn's digits without it."""
    device: str | None = None
    """cpu, gpu or tpu; without it JAX's default."""
    out: Path = Path("runs/digits")
    """The run's folder; a run with the same options is resumed."""


def run(digits: Digits, progress: bool = True) -> Trained:
    """Load, train, report."""
    train, test = load_mnist(digits.data_dir) if digits.data_dir else load_digits()
    if digits.training.batch > len(train.labels):
        raise InputError(
            f"digits: batch must be at most the {len(train.labels)} training images, got {digits.training.batch}"
        )
    config = {**dataclasses.asdict(digits.training), "data": str(digits.data_dir or "scikit-learn")}
    run = Run(digits.out, config, may_change=training_run.MAY_CHANGE)
    with training_run.on_device(digits.device):
        trained = train_classifier(digits.training, train, test, run=run, progress=progress)
    part = "first " if len(train.labels) < 60_000 else ""  # of MNIST's training set
    name = f"MNIST, {part}{len(train.labels):,} training images" if digits.data_dir else "scikit-learn's digits"
    paths = write_report(run.folder, trained, test, name)
    console = Console()
    console.print(f"{name}: test accuracy {100 * trained.test_accuracy:.2f} % of {len(test.labels):,}", highlight=False)
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)
    return trained


if __name__ == "__main__":
    study.main(run, Digits)
