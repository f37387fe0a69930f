"""What the studies share, and what they refuse before any work."""

import dataclasses
import json
import signal

import attention_memory
import checker_shootout
import curvature_cost
import digits
import gradient_noise
import growth
import kfac_digits
import linear_cross_entropy_memory
import mnist_lenet
import numpy as np
import on_accelerator
import per_example_cost
import private_digits
import pytest
import reversible_memory
import single_weight
import study
import sweep
import two_layer_chain
import two_phase_convolution
import two_phase_memory

from handgrad import InputError
from handgrad.models import Lenet5Config
from handgrad.training import Interrupted


def test_in_turn_there_and_back(tmp_path):
    """Every second turn in reverse order; what warms up is left out."""
    ran, clock = [], iter(range(100))
    programs = {name: lambda name=name: ran.append(name) for name in "ab"}
    seconds = study.in_turn(programs, 2, clock=lambda: next(clock))
    assert "".join(ran) == "abbaab"
    assert seconds == {"a": [1, 1], "b": [1, 1]}
    assert study.ratio([2.0, 3.0, 8.0], [1.0, 1.0, 2.0]) == 3.0


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [([2.0, 1.0], [2.0, 2.0], 0.5), ([0.0], [0.0], 0.0), ([1.0], [0.0], np.inf), ([], [], 0.0)],
)
def test_relative_error(value, reference, expected):
    assert study.relative_error(value, reference) == expected


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Interrupted("fit: interrupted by SIGINT, saved", signal.SIGINT)]
)
def test_what_is_interrupted_is_one_line(error, monkeypatch, capsys):
    """Before `fit` starts, and inside of it."""

    def run(options):
        raise error

    monkeypatch.setattr("sys.argv", ["sweep.py"])
    with pytest.raises(SystemExit) as caught:
        study.main(run, sweep.Options)
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"{str(error) or 'interrupted'}\n"


def test_figures_are_published_with_machine_and_options(tmp_path, capsys):
    options = attention_memory.Options(tokens=(1, 2), out=tmp_path / "new" / "figures.json")
    study.begin("attention_memory", options, "tokens")
    study.publish(options.out, options, study.table("title", "one", "two"), rows=[1])
    found = json.loads(options.out.read_text())
    assert found["rows"] == [1]
    assert found["options"] == {"tokens": [1, 2], "batch": 1, "heads": 8, "features": 64, "tile": 128}
    assert {"date", "device", "cores", "jax"} <= found.keys()
    assert str(tmp_path) not in options.out.read_text()
    assert "figures: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "wrong", "message"),
    [
        (attention_memory, {"tokens": (0,)}, "attention_memory: tokens must be a positive integer, got 0"),
        (curvature_cost, {"width": 12}, "curvature_cost: width must be a multiple of 8, for 4 heads, got 12"),
        (gradient_noise, {"epochs": 0}, "gradient_noise: epochs must be a positive integer, got 0"),
        (growth, {"doublings": 0}, "growth: doublings must be a positive integer, got 0"),
        (growth, {"axes": ("speed",)}, "growth: axes must be 'tokens', 'time', 'batch'"),
        (linear_cross_entropy_memory, {"chunk": 0}, "linear_cross_entropy_memory: chunk must be a positive integer"),
        (on_accelerator, {}, "on_accelerator: there is no accelerator here; --small runs everything tiny on a CPU"),
        (on_accelerator, {"minutes": 0.0}, "on_accelerator: minutes must be a positive number, got 0"),
        (per_example_cost, {"repeats": 0}, "per_example_cost: repeats must be a positive integer, got 0"),
        (private_digits, {"noise_multipliers": (-1.0,)}, "private_digits: noise_multipliers must be a positive number"),
        (private_digits, {"delta": 2.0}, "private_digits: delta must be above 0 and below 1 / 1437, .* got 2.0"),
        (private_digits, {"delta": 0.0}, "private_digits: delta must be above 0"),
        (private_digits, {"batch": 2000}, "private_digits: batch must be at most the 1437 examples, got 2000"),
        (private_digits, {"l2_clip_norm": 0.0}, "private_digits: l2_clip_norm must be a positive number"),
        (private_digits, {"noise_multipliers": ()}, "private_digits: noise_multipliers must have one value at least"),
        (sweep, {"rates": ()}, "sweep: rates must have one value at least, got none"),
        (sweep, {"batch": 2000}, "sweep: batch must be at most the 1437 examples, got 2000"),
        (checker_shootout, {"parts": ()}, "checker_shootout: parts must have one value at least, got none"),
        (on_accelerator, {"parts": ()}, "on_accelerator: parts must have one value at least, got none"),
        (gradient_noise, {"batch": 1}, "gradient_noise: batch must be 2 to 1437, the examples, got 1"),
        (reversible_memory, {"width": 3}, "reversible_memory: width must be even, got 3"),
        (single_weight, {"rate": 0}, "single_weight: rate must be a positive number, got 0"),
        (two_layer_chain, {"rate": 0}, "two_layer_chain: rate must be a positive number, got 0"),
        (two_phase_convolution, {"steps": 0}, "two_phase_convolution: steps must be a positive integer, got 0"),
        (two_phase_memory, {"steps": 0}, "two_phase_memory: steps must be a positive integer, got 0"),
    ],
)
def test_options_that_make_no_sense(module, wrong, message, tmp_path):
    with pytest.raises(InputError, match=f"^{message}"):
        module.run(dataclasses.replace(module.Options(), out=tmp_path / "figures.json", **wrong))
    assert not (tmp_path / "figures.json").exists()


def test_what_else_the_studies_of_digits_refuse(tmp_path):
    lenet = mnist_lenet.MnistLenet(tmp_path, out=tmp_path / "figures.json")
    kfac = kfac_digits.KfacDigits(out=tmp_path)
    for run, message in [
        (lambda: digits.run(digits.Digits(data_dir=tmp_path, out=tmp_path)), "idx_file: expected train-images-idx3"),
        (lambda: dataclasses.replace(kfac, epochs=0), "kfac_digits: epochs must be a positive integer, got 0"),
        (lambda: dataclasses.replace(kfac, adam_rates=()), "kfac_digits: adam_rates must have one value at least"),
        (lambda: dataclasses.replace(kfac, kfac_rates=(0.1, -1.0)), "kfac_digits: kfac_rates must be a positive"),
        (lambda: kfac_digits.run(dataclasses.replace(kfac, batch=2000)), "kfac_digits: batch must be at most 1437"),
        (lambda: mnist_lenet.run(dataclasses.replace(lenet, epochs=0)), "mnist_lenet: epochs must be a positive"),
        (lambda: mnist_lenet.run(dataclasses.replace(lenet, learning_rate=0.0)), "mnist_lenet: learning_rate must be"),
    ]:
        with pytest.raises(InputError, match=f"^{message}"):
            run()
    with pytest.raises(InputError, match="lenet5: pool must be 'average' or 'max', got 'sum'"):
        mnist_lenet.lenet5(Lenet5Config(pool="sum"))
