"""handgrad compare: the curves of runs in one picture."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from handgrad.checks import InputError
from handgrad.cli.output import check_writable
from handgrad.extras import install
from handgrad.training.curves import picture_endings, plot_curves
from handgrad.training.runs import read_config, read_metrics


@dataclass(frozen=True)
class Compare:
    """Plot the metrics of runs together; list how they differ and where they ended."""

    runs: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")]
    ]
    """Folders of runs, each with metrics.jsonl."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("compare.png")
    """The picture to draw, .png, .svg or .pdf; folders that are missing are made."""


def main(options: Compare) -> int:
    """The command; its exit status is 0."""
    if not options.runs:
        raise InputError("compare: runs must be folders of runs, got none")
    names = _names(options.runs)
    runs = {}
    for name, folder in zip(names, options.runs, strict=True):
        runs[name] = read_metrics(folder)
        if not runs[name]:
            raise InputError(
                f"compare: runs must have metrics, got {folder}, in whose metrics.jsonl there are none yet"
            )
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"compare: a picture needs matplotlib: {install('report')}")
    endings = picture_endings()
    if options.out.suffix.lower() not in endings and not options.out.is_dir():
        raise InputError(f"compare: out must end in one of {', '.join(endings)}, got {options.out}")
    check_writable("compare", "out", options.out)
    configs = dict(zip(names, map(read_config, options.runs), strict=True))
    console = Console()
    console.print(_table(runs, configs))
    plot_curves(options.out, runs, title="" if len(names) > 1 else names[0])
    console.print(f"written: {options.out}", soft_wrap=True)
    return 0


def _names(folders: tuple[Path, ...]) -> list[str]:
    """Of each folder what is not common to all; a folder that is given twice is an error."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError(f"compare: runs must be different folders, got {', '.join(map(str, folders))}")
    above = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(above)) for path in paths]


def _table(runs: dict[str, list[dict[str, Any]]], configs: dict[str, dict[str, Any]]) -> Table:
    """A column for each run: the options in which they differ, and its last metrics."""
    options = dict.fromkeys(name for config in configs.values() for name in config)
    differing = [name for name in options if len({repr(config.get(name)) for config in configs.values()}) > 1]
    metrics = dict.fromkeys(name for lines in runs.values() for name in lines[-1])
    table = Table("run", box=None, pad_edge=False)
    for run in runs:
        table.add_column(run, justify="right", overflow="fold")
    for name in differing:
        label = f"{name} (option)" if name in metrics else name
        table.add_row(label.replace("_", " "), *(_number(config.get(name, "")) for config in configs.values()))
    for name in metrics:
        table.add_row(name.replace("_", " "), *(_number(lines[-1].get(name, "")) for lines in runs.values()))
    return table


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
