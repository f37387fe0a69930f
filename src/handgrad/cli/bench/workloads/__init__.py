"""The registry: every workload, family by family."""

from handgrad.cli.bench.workload import Workload
from handgrad.cli.bench.workloads import images, mlps

ALL: tuple[Workload, ...] = (*mlps.WORKLOADS, *images.WORKLOADS)
