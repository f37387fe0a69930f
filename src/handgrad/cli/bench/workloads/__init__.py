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
