"""What a study of a language model prints and writes."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import study
from jaxtyping import Array
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from handgrad.training import Loader, Step, TrainState
from handgrad.training.runs import read_metrics
from language.options import Training


def report(title: str, options: Training, figures: Mapping[str, float], sample: bytes) -> None:
    """Print the figures and the sample; write them into the run's folder, with a picture of its curves."""
    from matplotlib.figure import Figure

    table = study.table(title, *figures)
    whole = {name: isinstance(value, int) or value > 100 for name, value in figures.items()}
    table.add_row(*(f"{value:,.0f}" if whole[name] else f"{value:.3f}" for name, value in figures.items()))
    study.publish(options.out / "figures.json", options, table, **figures)
    Console().print(Panel(Text(sample.decode(errors="replace")), title="a sample"))
    (options.out / "sample.txt").write_bytes(sample)
    lines = read_metrics(options.out)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in (("loss", "training"), ("held_out_loss", "held out")):
        axes.plot([line["step"] for line in lines], [line[name] for line in lines], ".-", label=label)
    axes.set(xlabel="steps", ylabel="nats per byte", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(options.out / "curves.png", dpi=120)


def compared(ways: Mapping[str, Step[Array]], state: TrainState, loader: Loader, steps: int) -> dict[str, Any]:
    """The losses of the first steps in two ways, and how far they are apart."""
    found = {}
    for way, step in ways.items():
        compiled, current, losses = jax.jit(step), state, []
        batches = itertools.chain.from_iterable(map(loader.epoch, itertools.count()))
        for batch in itertools.islice(batches, steps):
            current, value = compiled(current, *batch)
            losses.append(value)
        found[way] = np.array(losses)
    (one, values), (other, reference) = found.items()
    apart = float(np.max(np.abs(values - reference)))
    table = study.table(f"Loss by {one} and by {other}", "steps", "first", "last", "largest difference")
    table.add_row(str(steps), f"{values[0]:.4f}", f"{values[-1]:.4f}", f"{apart:.1e}")
    Console().print(table)
    return {**found, "apart": apart}
