"""The workloads of `handgrad bench` at sizes that fill a chip, those that tell most first."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from accelerator.part import Part
from handgrad.cli.bench import baselines, measured
from handgrad.cli.bench.rates import clock, copy_rate, product_rate
from handgrad.cli.bench.row import Plan
from handgrad.cli.bench.workload import Workload
from handgrad.cli.bench.workloads import ALL

# workload: what takes the place of its sizes; in float64, for the check, each needs 30 GB at most
SIZES: dict[str, dict[str, Any]] = {
    "mlp-1024x4-10-relu": {"sizes": (4096,) * 4 + (10,), "batch": 8192},
    "attention-causal-2048": {"heads": 32},
    "llama-256x4": {
        **{"vocabulary": 32_000, "width": 1024, "hidden": 2816, "heads": 16, "kv_heads": 4},
        **{"tokens": 1024, "batch": 4},
    },
    "conv-3x3-64": {"size": 56, "batch": 256},
    "lstm-large": {"time": 256, "batch": 256, "width": 1024},
    "linear-cross-entropy-768x8k": {"rows": 16_384, "vocabulary": 50_257},
    "resnet-20": {"batch": 1024},
    "cross-entropy-32k": {"rows": 8192},
    "layer-norm-4096": {"rows": 16_384},
    "conv-depthwise-3x3-256": {"size": 56, "batch": 64},
    "repeat-gelu-batch-2048": {"width": 1024, "batch": 8192},
    "clipped-mlp": {"batch": 512, "width": 1024},
    "linear-recurrence-1024": {"batch": 64, "width": 1024},
    "conv-1x1-256": {"size": 56, "batch": 128},
    "two-phase-dense-512": {"rows": 8192, "width": 2048},
    "gpt2-256x4-recompute": {"vocabulary": 32_000, "width": 1024, "heads": 16, "tokens": 1024, "batch": 4},
    "gru-large": {"time": 256, "batch": 256, "width": 1024},
    "conv-strided-3x3-64": {"size": 56, "batch": 256},
    "conv-transposed-3x3-64": {"size": 28, "batch": 128},
    "attention-causal-8192": {"heads": 8},
    "rms-norm-4096": {"rows": 16_384},
    "softmax-1024x1024": {"rows": 16_384, "width": 4096},
    "gelu-1024x1024": {"rows": 16_384, "width": 4096},
    "all-cnn-c": {"batch": 512},
    "mobilenet": {"width": 128, "size": 112, "batch": 128},
    "dlrm": {"rows": 100_000, "width": 64, "hidden": (1024, 512), "batch": 8192},
    "lstm-language-model": {"vocabulary": 32_000, "width": 1024, "time": 128, "batch": 64},
    "norms-gpt2-block": {"batch": 64, "width": 512, "tokens": 256},
    "noise-scale-mlp": {"batch": 512, "width": 1024},
    "two-phase-embedding-512": {"rows": 8192, "vocabulary": 500_000, "width": 128},
    "overhead-single-weight": {},
}


def at(name: str, *, small: bool) -> Workload:
    """The workload at the size for accelerators, or at the one for tests."""
    workload = next(one for one in ALL if one.name == name)
    return dataclasses.replace(workload, sizes={**workload.sizes, **(workload.tiny if small else SIZES[name])})


def run(part: Part, names: Sequence[str], plan: Plan, *, small: bool) -> list[dict[str, Any]]:
    """The rows of these workloads. PyTorch is left out: its baselines are programs for CPUs."""
    rates = {"product_rate": product_rate, "copy_rate": copy_rate}
    part.write(clock=clock(), **{name: part.attempt(name, rate) for name, rate in rates.items()})
    rows = []
    for name in names:
        if row := part.attempt(name, lambda name=name: measured(at(name, small=small), plan, baselines.folder(None))):
            rows.append(row)
        part.write(rows=rows)
    return rows
