"""The run on an accelerator: small on a CPU, and what it says where something fails or the time is up."""

import json
import time

import jax
import on_accelerator
import pytest
from accelerator import checks, gpt2_step, part, registry
from on_accelerator import Options

from handgrad.cli.bench.workloads import ALL


@pytest.mark.slow
def test_everything_tiny(tmp_path, monkeypatch, capsys):
    """All parts right, but for one way of GPT-2, which fails in a sentence while the others run."""
    monkeypatch.setattr(gpt2_step, "ways", lambda sizes, all_ways=gpt2_step.ways: all_ways(sizes) | {"none": None})
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        found = on_accelerator.run(Options(small=True, out=tmp_path))
    check, gpt2, bench = (json.loads((tmp_path / f"{name}.json").read_text()) for name in found)
    assert check["verdicts"] == {mode: {"PASS": 3} for mode in checks.MODES}
    assert gpt2["failed"] == {"none": "AttributeError: 'NoneType' object has no attribute 'theirs'"}
    assert len(gpt2["ways"]) == 5
    for way in gpt2["ways"].values():
        assert way["tokens_per_s"] == pytest.approx(12 / (way["ms"] / 1e3))
        assert way["losses"] == pytest.approx(gpt2["ways"]["by hand"]["losses"], rel=1e-5)
    assert [row["name"] for row in bench["rows"]] == on_accelerator.OF_TINY["bench"]
    assert check["failed"] == bench["failed"] == {}
    assert {"date", "device", "jax", "runtime"} <= check.keys()
    page = (tmp_path / "README.md").read_text()
    assert "| float32, TF32 | 3 | 0 | 0 | 0 |" in page
    assert "- failed: none: AttributeError: " in page
    assert page in capsys.readouterr().out
    assert all((tmp_path / f"{name}.png").stat().st_size > 5_000 for name in ("gpt2", "bench"))


def test_a_part_that_fails_or_comes_too_late_is_said_and_the_others_run(tmp_path, monkeypatch):
    def fails(part, options):
        part.write(rows={"one": {}})
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a list of buffers")

    ran = []
    monkeypatch.setattr(on_accelerator, "PARTS", {"check": fails, "bench": lambda part, options: ran.append(part)})
    found = on_accelerator.run(Options(small=True, out=tmp_path))
    assert found["check"]["failed"] == {"check": "JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory"}
    assert json.loads((tmp_path / "check.json").read_text())["rows"] == {"one": {}}
    assert len(ran) == 1
    found = on_accelerator.run(Options(small=True, out=tmp_path, minutes=1e-9))
    assert found["bench"]["left_out"] == ["bench"]
    assert "- not begun in time: 1, from bench on" in (tmp_path / "README.md").read_text()


def test_a_wrong_loss_is_not_timed(tmp_path):
    one = part.Part(tmp_path / "gpt2.json", time.monotonic())
    losses = {"by hand": [7.0, 6.9], "jax.grad, scan": [7.0, 6.91], "by hand, blocks rerun": [7.0, 7.0]}
    right = gpt2_step.agreeing(one, {name: {"losses": each} for name, each in losses.items()})
    assert right == ["by hand", "jax.grad, scan"]
    assert one.failed["by hand, blocks rerun"].startswith("its losses are [7.0, 7.0] and those of jax.grad, scan")
    assert one.attempt("late", lambda: 1) is None
    assert one.attempt("late", lambda: 1, late=True) == 1
    assert part.sentence(ValueError("a" * 300)) == f"ValueError: {'a' * 187}…"


def test_sizes_for_accelerators_are_sizes_of_their_workloads():
    named = {one.name: one for one in ALL}
    for name, sizes in registry.SIZES.items():
        assert sizes.keys() <= named[name].sizes.keys(), name
    assert set(on_accelerator.OF_TINY["bench"]) <= registry.SIZES.keys()
    assert len(checks.order()) == len(set(map(str, checks.order())))
