"""The pages show the figures of the runs that docs/results keeps, and these meet their bars."""

import json

import kfac_digits
import ode_memory
import pytest
import reversible_memory
import two_phase_memory
from conftest import REPOSITORY


def chunked(*names):
    """At 1,024 steps no more time or memory than the plain scan."""

    def lines(found):
        assert found["options"]["time"] == 1024
        for name in names:
            row = found["rows"][name]
            assert max(row["time"], row["memory"]) <= 1
            sizes = f"{row['memory_bytes'] / 2**20:.1f} | {row['scan_memory_bytes'] / 2**20:.1f}"
            yield f"| {name} | {row['time']:.2f} | {row['memory']:.2f} | {sizes} | {row['apart']:.0e} |"

    return lines


def curvature_cost(found):
    mlp, block = found["figures"].values()
    return [f"| {name} | {row['ratio']:.2f} | {block[name]['ratio']:.2f} |" for name, row in mlp.items()]


def kfac(found):
    for name, best in found["best"].items():
        one = found["runs"][name][str(best)]
        times = [kfac_digits.reached(one, threshold) for threshold in kfac_digits.THRESHOLDS]
        cells = [f"{pair[0]} ({pair[1]:.2f} s)" if pair else "never" for pair in times]
        yield f"{best:g} | {' | '.join(cells)} | {one['train_loss'][-1]:.1e} |"


def linear_cross_entropy(found):
    assert [row["tokens"] for row in found["rows"]] == [512, 1024, 2048, 4096]
    for row in found["rows"]:
        sizes = f"{row['whole_temp_bytes'] / 1e6:.1f} MB | {row['chunked_temp_bytes'] / 1e6:.1f} MB"
        ratios = f"{row['temp_ratio']:.3f} | {row['time_ratio']:.2f} | {row['largest_error']:.1e}"
        yield f"| {row['tokens']:,} | {sizes} | {ratios} |"


def ode(found):
    """At 256 steps a fiftieth of autodiff's memory, and no less exact."""
    for row in found["rows"]:
        ways = [row[way] for way in ode_memory.WAYS]
        cells = [f"{way['temp_bytes']:,}" for way in ways] + [f"{way['error']:.1e}" for way in ways]
        yield f"| {row['steps']} | {' | '.join(cells)} |"
        assert row["checkpoints"]["error"] <= 1.2 * row["jax.grad"]["error"]
    assert 50 * row["checkpoints"]["temp_bytes"] <= row["jax.grad"]["temp_bytes"]


def per_example_cost(found):
    for part in ("mlp", "block"):
        for name, way in found[part].items():
            yield f"| {name} | {way['ratio']:.2f} | {way['temp_bytes']:,} |"
    for row in found["tokens"]:
        ratios = " | ".join(f"{row['ways'][way]['ratio']:.2f}" for way in ("gram", "direct", "vmap(jax.grad)"))
        yield f"| {row['tokens']} | {row['chosen']} | {ratios} |"


def reversible(found):
    assert [row["depth"] for row in found["rows"]] == [4, 16, 64]
    for row in found["rows"]:
        ways = [row[way] for way in reversible_memory.WAYS]
        yield f"| {row['depth']} | " + " | ".join(f"{way['temp_bytes']:,}" for way in ways) + " |"
        yield f"| {row['depth']} | " + " | ".join(f"{way['error']:.1e}" for way in ways) + " |"


def scaling(found):
    """The collectives at 64 devices under Explicit axes, and times everywhere."""
    nothing = {"times": 0, "bytes": 0}
    for row in found["rows"]:
        layout, counts = row["layout"], [row["collectives"], row["formula"]]
        if row["axes"] == "explicit" and row["devices"] == 64:
            for kind in sorted({*counts[0], *counts[1]}):
                both = [of.get(kind, nothing) for of in counts]
                yield (
                    f"| {layout} | {kind} | "
                    + " | ".join(f"{n['times']} | {n['bytes'] / 1e6:,.1f}" for n in both)
                    + " |"
                )
        times = " | ".join(f"{row[key][link]:,.1f}" for link in row["ms"] for key in ("ms", "formula_ms"))
        yield f"| {layout} | {row['axes']} | {row['devices']} | {times} | {row['state_bytes'] / 1e6:,.0f} |"


def two_phase_convolution(found):
    """At most a tenth more time than a plain step."""
    for row in found["rows"]:
        assert row["time_ratio"] <= 1.1
        yield f"| {row['network']} | {row['time_ratio']:.2f} | {row['memory_ratio']:.2f} |"


def two_phase(found):
    """At 16 examples: a quarter of the memory, at most a tenth more time, the same parameters."""
    for row in found["rows"]:
        memory = " | ".join(f"{row[way]['temp_bytes']:,}" for way in two_phase_memory.WAYS)
        figures = f"{row['memory_ratio']:.3f} | {row['time_ratio']:.2f} | {row['distance']:.1e}"
        yield f"| {row['optimizer']} | {row['batch']} | {memory} | {figures} |"
        if row["batch"] == 16:
            assert row["memory_ratio"] <= 0.25
            assert row["time_ratio"] <= 1.10
            assert row["distance"] <= 1e-6


@pytest.mark.parametrize(
    ("page", "results", "lines"),
    [
        ("curvature", "curvature_cost", curvature_cost),
        ("curvature", "kfac_digits", kfac),
        ("derivations/sequences/delta_rule", "chunked_scans", chunked("delta rule", "gated delta rule")),
        ("derivations/sequences/selective_scan", "chunked_scans", chunked("selective scan")),
        ("derivations/losses/linear_cross_entropy", "linear_cross_entropy", linear_cross_entropy),
        ("factors", "per_example_cost", per_example_cost),
        ("derivations/structure/ode", "ode_memory", ode),
        ("derivations/structure/reversible", "reversible_memory", reversible),
        ("scaling", "scaling", scaling),
        ("two_phase", "two_phase_convolution", two_phase_convolution),
        ("two_phase", "two_phase_memory", two_phase),
    ],
)
def test_the_page_shows_the_figures_of_the_run(page, results, lines):
    text = (REPOSITORY / f"docs/{page}.md").read_text()
    shown = list(lines(json.loads((REPOSITORY / f"docs/results/{results}.json").read_text())))
    assert shown
    assert not [line for line in shown if line not in text]
