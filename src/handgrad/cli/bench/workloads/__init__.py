"""The registry: every workload, family by family."""

from handgrad.cli.bench.workload import Workload
from handgrad.cli.bench.workloads import images, mlps, sequences, transformers

ALL: tuple[Workload, ...] = (*mlps.WORKLOADS, *images.WORKLOADS, *sequences.WORKLOADS, *transformers.WORKLOADS)
