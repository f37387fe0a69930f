"""What does an accelerator say: are the gradients right there, and how fast is by hand beside jax.grad?

Three parts, each with its file in --out, which is written as the part goes on; what fails, or doesn't begin in time, is
a sentence there, and the others still run:

- check: every rule against autodiff and float64 by handgrad's own check, in float32 with products in full precision and
  in TF32, and in bfloat16; each rule's first inputs first, then as many others as there is time for.
- gpt2: a training step of GPT-2 with 124 million parameters, AdamW, products in bfloat16: tokens a second, and the
  share of the rate of matrix products in that dtype, measured in the same process.
- bench: workloads of `handgrad bench` at sizes that fill a chip, by wall time, in JAX's default precision (products in
  TF32 on GPUs), as many as there is time for.

    python experiments/on_accelerator.py            # on the accelerator, six minutes at most
    python experiments/on_accelerator.py --small    # everything tiny, on a CPU
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import study
from accelerator import checks, gpt2_step, registry
from accelerator.part import Part, hardware
from accelerator.report import page, plot_steps
from rich.console import Console

from handgrad.checks import InputError, check_count, check_positive
from handgrad.cli.bench.row import Plan
from handgrad.cli.bench.show import plot
from handgrad.training import make_folder

Name = Literal["check", "gpt2", "bench"]
ENDS: dict[Name, float] = {"check": 0.3, "gpt2": 0.6, "bench": 0.9}  # shares of the time; a part begins nothing later
PLAN, TINY = Plan(rounds=20, seconds=2.0, compilations=1), Plan(rounds=3, seconds=0.1, compilations=1)
OF_TINY = {"check": 3, "bench": ["mlp-1024x4-10-relu", "cross-entropy-32k"]}


@dataclass(frozen=True)
class Options:
    """Cross-check, GPT-2's step and the bench on an accelerator."""

    parts: tuple[Name, ...] = tuple(ENDS)
    """Which parts to run."""
    minutes: float = 6.0
    """The time for all of them. Each ends after its share, but for what has begun."""
    batch: int = gpt2_step.Sizes._field_defaults["batch"]
    """Sequences of 1,024 tokens in a batch of GPT-2: fewer, where memory runs out."""
    small: bool = False
    """Everything tiny, on whatever device there is."""
    out: Path | None = None
    """The folder for the files; by default runs/ and the device's kind."""


def check(part: Part, options: Options) -> None:
    """Verdicts by case and mode."""
    cases = checks.order()
    checks.run(part, cases[: OF_TINY["check"]] if options.small else cases)


def gpt2(part: Part, options: Options) -> None:
    """Tokens a second by hand and by jax.grad."""
    if options.small:
        ways = gpt2_step.run(part, gpt2_step.Sizes(11, 8, 2, 2, 6, 2), "float32", TINY)
    else:
        ways = gpt2_step.run(part, gpt2_step.Sizes(batch=options.batch), "bfloat16", PLAN)
    plot_steps(ways, part.path.with_suffix(".png"))


def bench(part: Part, options: Options) -> None:
    """Rows as those of `handgrad bench`."""
    plan, names = (TINY, OF_TINY["bench"]) if options.small else (PLAN, list(registry.SIZES))
    if rows := registry.run(part, names, plan, small=options.small):
        plot(rows, part.path.with_suffix(".png"))


PARTS: dict[Name, Callable[[Part, Options], None]] = {"check": check, "gpt2": gpt2, "bench": bench}


def run(options: Options) -> dict[str, dict[str, Any]]:
    """Run the parts and write their files and the page; what they found, by part."""
    began = time.monotonic()
    check_positive("on_accelerator", "minutes", options.minutes)
    check_count("on_accelerator", "batch", options.batch)
    study.check_lists("on_accelerator", options)
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.small:
        raise InputError("on_accelerator: there is no accelerator here; --small runs everything tiny on a CPU")
    out = make_folder(options.out or Path("runs") / re.sub(r"\W+", "-", device.device_kind.lower()))
    head = {**hardware(), "options": study.settings(options)}
    console, found = Console(), {}
    for name in PARTS:
        if name in options.parts:
            with console.status(name):
                part = Part(out / f"{name}.json", began + 60 * options.minutes * ENDS[name], **head)
                part.attempt(name, lambda part=part, name=name: PARTS[name](part, options))
                part.write()
            found[name] = part.all
            console.print(f"{part.path}: {len(part.failed)} failed, {len(part.left_out)} left out", soft_wrap=True)
            (out / "README.md").write_text(page(head, found), encoding="utf-8")
    console.print(page(head, found), soft_wrap=True, highlight=False, markup=False)
    return found


if __name__ == "__main__":
    study.main(run, Options)
