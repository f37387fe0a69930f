"""What was found as a page of tables, and GPT-2's step as a plot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerator.checks import MODES
from handgrad.cli.bench.show import CLOCKS

Found = dict[str, Any]


def page(head: Found, found: dict[str, Found]) -> str:
    """All parts in Markdown, with the machine and the date."""
    machine = f"{head['device']}, {head['runtime']}, jax {head['jax']}, Python {head['python']}, {head['date']}"
    tables = {"check": ("Cross-check", _check), "gpt2": ("GPT-2's training step", _gpt2), "bench": ("Bench", _bench)}
    small = " --small" if head["options"]["small"] else ""
    lines = [f"# {head['device']}", "", f"`python experiments/on_accelerator.py{small}`: {machine}."]
    for name, figures in found.items():
        title, table = tables[name]
        lines += ["", f"## {title}", "", *table(figures)]
        lines += [f"- failed: {name}: {said}" for name, said in figures["failed"].items()]
        if left_out := figures["left_out"]:
            lines += [f"- not begun in time: {len(left_out)}, from {left_out[0]} on"]
    return "\n".join(lines) + "\n"


def _table(headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    cells = [list(headings), *map(list, rows)]
    lines = [f"| {' | '.join(map(str, row))} |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:], ""]


def _check(figures: Found) -> Iterable[str]:
    verdicts = ("PASS", "INCONCLUSIVE", "FAIL", "INVALID")
    counts = figures.get("verdicts", {})
    yield from _table(
        ("", *verdicts), ((mode, *(counts.get(mode, {}).get(one, 0) for one in verdicts)) for mode in MODES)
    )
    for case, row in figures.get("rows", {}).items():
        for mode, one in row.items():
            if one["verdict"] != "PASS":
                yield f"- {one['verdict']} in {mode}: {case}: {one['reason']}"


def _gpt2(figures: Found) -> list[str]:
    rows = []
    for name, one in figures.get("ways", {}).items():
        if "ms" in one:
            share = "–" if one["product_share"] is None else f"{one['product_share']:.0%}"
            memory = f"{one['temp_bytes'] / 1e9:.2f}"
            rows.append((name, f"{one['ms']:.3g}", f"{one['tokens_per_s']:,.0f}", share, memory))
    rate = figures.get("product_rate") or 0
    sizes = ", ".join(f"{name} {size:,}" for name, size in figures.get("sizes", {}).items())
    head = f"{sizes}. Products in {figures.get('dtype')}, whose rate is {rate / 1e12:,.3g} TFLOP/s."
    return [head, "", *_table(("", "ms", "tokens/s", "share of the rate", "temporary GB"), rows)]


def _bench(figures: Found) -> list[str]:
    rows = []
    for row in figures.get("rows", []):
        low, middle, high = row["time"][row["clock"]]
        time = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        own = f"{row['ways']['hand'][row['clock'] + '_ms']:.3g}"
        rows.append((row["name"], own, time, row["time"]["baseline"], f"{row['memory']['ratio']:.2f}"))
    headings = ("workload", "by hand, ms", "time / the best baseline", "which", "memory / the least")
    return [f"Times are {CLOCKS.get(figures.get('clock', ''))}.", "", *_table(headings, rows)]


def plot_steps(ways: dict[str, Found], path: Path) -> None:
    """Tokens a second of each way."""
    from matplotlib.figure import Figure

    timed = {name: one for name, one in ways.items() if "ms" in one}
    figure = Figure(figsize=(7, 0.8 + 0.4 * len(timed)), layout="constrained")
    axes = figure.subplots()
    colors = ["tab:orange" if name.startswith("by hand") else "tab:blue" for name in timed]
    bars = axes.barh(list(timed), [one["tokens_per_s"] for one in timed.values()], color=colors)
    shares = [one["product_share"] for one in timed.values()]
    axes.bar_label(bars, [f"{share:.0%}" if share else "" for share in shares], padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("tokens a second; share of the rate of products", fontsize=8)
    axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=150)
