"""The registry: every workload, family by family."""

from handgrad.cli.bench.workload import Workload
from handgrad.cli.bench.workloads import folds, images, mlps, rules, sequences, steps, transformers

ALL: tuple[Workload, ...] = (
    *mlps.WORKLOADS,
    *images.WORKLOADS,
    *sequences.WORKLOADS,
    *transformers.WORKLOADS,
    *rules.WORKLOADS,
    *folds.WORKLOADS,
    *steps.WORKLOADS,
)
# what --quick runs: 57 seconds of processors on a busy machine, compiling included, half of them for GPT-2
WITHIN_A_MINUTE = (
    "mlp-784-30-10-sigmoid",
    "lstm-small",
    "gpt2-128x2",
    "attention-causal-512",
    "cross-entropy-8k",
    "layer-norm-1024",
    "conv-depthwise-3x3-64",
    "norms-mlp",
    "overhead-single-weight",
)
