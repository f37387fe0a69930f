"""The studies run, and find what they claim."""

import json

import attention_memory
import autoencoder
import chunked_scans
import curvature_cost
import deep_linear
import digits
import gradient_noise
import growth
import hand_and_autodiff
import jax
import kfac_digits
import linear_cross_entropy_memory
import numpy as np
import ode_memory
import per_example_cost
import private_digits
import pytest
import reversible_memory
import single_weight
import sweep
import training_run
import two_layer_chain
import two_phase_convolution
import two_phase_memory

from handgrad import InputError
from handgrad.training.digits import Options


def written(path):
    return json.loads(path.read_text())


def test_single_weight_prints_the_questions_digits(tmp_path, capsys):
    w = single_weight.run(single_weight.Options(out=tmp_path))
    assert [f"{value:.5g}" for value in w] == single_weight.PRINTED
    assert f"{5.7 * w[-1]:.5g}" == "50.099"
    printed = capsys.readouterr().out
    assert all(value in printed for value in single_weight.PRINTED)
    assert {path.name for path in tmp_path.glob("*.png")} == {"weight.png", "convergence_law.png"}


def test_single_weight_by_hand_is_by_autodiff_and_by_formula():
    numbers = (np.float64(-23.1), np.float64(5.7), np.float64(50.1), np.float64(0.007))
    w, by_hand, by_autodiff = single_weight.descend(*numbers, 20)
    before = np.array([-23.1, *w[:-1]])
    np.testing.assert_allclose(by_hand, by_autodiff, rtol=1e-13)
    np.testing.assert_allclose(by_hand, 2 * 5.7 * (5.7 * before - 50.1), rtol=1e-9)
    error, goal = 1 - 2 * 0.007 * 5.7**2, 50.1 / 5.7
    np.testing.assert_allclose(np.array(w) - goal, (-23.1 - goal) * error ** np.arange(1, 21), rtol=1e-8)


def test_two_layer_chain_learns_both_weights_and_the_questions_formula_is_right(tmp_path):
    seen = two_layer_chain.run(two_layer_chain.Options(out=tmp_path))
    np.testing.assert_allclose(seen["first by hand"], seen["first by autodiff"], rtol=1e-12)
    np.testing.assert_allclose(seen["second by hand"], seen["second by autodiff"], rtol=1e-12)
    np.testing.assert_allclose(seen["first by hand"], seen["question"], rtol=1e-12)
    assert abs(seen["output"][-1] - 50.1) < 0.05
    assert np.ptp(seen["first"]) > 1
    assert np.ptp(seen["second"]) > 1
    assert (tmp_path / "weights.png").exists()


@pytest.mark.slow
def test_digits_by_default_twice_to_the_bit(tmp_path):
    """The defaults, seed 0: at least 97 %, and the same bits again."""
    runs = [digits.run(digits.Digits(out=tmp_path / name), progress=False) for name in ("one", "two")]
    assert runs[0].test_accuracy >= 0.97
    assert np.array_equal(runs[0].logits, runs[1].logits)
    lines = [json.loads(line) for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["test_accuracy"] == runs[0].test_accuracy
    assert len(lines) == Options().epochs


@pytest.mark.slow
def test_mnist(shared_data, tmp_path):
    """First 10,000 training images, two epochs."""
    options = Options(epochs=2, sizes=(100,))
    trained = digits.run(digits.Digits(options, data_dir=shared_data / "mnist", out=tmp_path), progress=False)
    assert trained.test_accuracy >= 0.92


@pytest.mark.slow
def test_a_run_is_resumed_or_refused(tmp_path, capsys):
    """Two epochs, then two more: what four at once write. Other options are another run."""
    options = {"sizes": (16,), "batch": 256}
    for out, runs in (("whole", (4,)), ("parts", (2, 4, 4))):
        for epochs in runs:
            digits.run(digits.Digits(Options(**options, epochs=epochs), out=tmp_path / out), progress=False)
    whole, parts = ((tmp_path / out / "metrics.jsonl").read_text() for out in ("whole", "parts"))
    assert whole == parts
    assert len(whole.splitlines()) == 4
    with pytest.raises(InputError, match=r"Run: .*whole holds another run: its learning_rate is 0.002, this one's 0.1"):
        digits.run(digits.Digits(Options(**options, learning_rate=0.1), out=tmp_path / "whole"), progress=False)
    with (
        pytest.raises(InputError, match=r"device: must be one of this machine's, cpu, got 'abacus'"),
        training_run.on_device("abacus"),
    ):
        pass


def test_both_gradients_train_the_same_network(tmp_path):
    figures = hand_and_autodiff.run(hand_and_autodiff.Options(steps=50, hidden=(16,), out=tmp_path))
    assert figures["float64"]["loss_difference"] < 1e-13
    assert figures["float64"]["params_difference"] < 1e-12
    assert figures["float32"]["loss_difference"] < 1e-4
    assert figures["float32"]["loss_last"] < figures["float32"]["loss_first"]


def test_cotangents_of_deep_linear_networks_follow_the_law(tmp_path):
    with jax.enable_x64(True):
        found = deep_linear.run(deep_linear.Options(depth=20, width=64, gains=(0.5, 1.0), out=tmp_path))
    for gain, norms in found["linear"].items():
        assert norms[-1] == 1
        np.testing.assert_allclose(np.log2(norms[0]) / 19, np.log2(gain), atol=0.1)
    assert found["relu"][1.0][0] < 0.01 * found["linear"][1.0][0]


@pytest.mark.slow
def test_an_autoencoder_beats_nothing(tmp_path):
    """Four numbers a digit: nearer than the mean digit after a few epochs; and its plot is there."""
    errors = autoencoder.run(autoencoder.Options(hidden=32, epochs=3, out=tmp_path), progress=False)
    assert errors["network"] < 0.3
    assert (tmp_path / "digits.png").exists()


def test_a_sweep_has_a_figure_for_each_rate_and_seed(tmp_path):
    figures = sweep.run(sweep.Options(rates=(1e-3, 0.5), seeds=2, hidden=(16,), epochs=2, out=tmp_path))
    small, large = np.array(figures["test_accuracy"])
    assert small.shape == (2,)
    assert large.min() > small.max()
    assert large[0] != large[1]


def test_attention_memory_of_twice_the_tokens(tmp_path, capsys):
    out = tmp_path / "runs" / "memory.json"
    options = attention_memory.Options(tokens=(64, 128), heads=2, features=8, tile=16, out=out)
    small, large = attention_memory.run(options)
    assert large["plain"] > 3.5 * small["plain"]
    assert large["tiled"] < 2.2 * small["tiled"]
    assert written(out)["rows"] == [small, large]
    assert "plain / tiled" in capsys.readouterr().out


@pytest.mark.slow
def test_chunked_scans(tmp_path):
    """Both answers are one, and chunks keep less."""
    options = chunked_scans.Options(
        time=128, batch=1, heads=1, features=16, channels=16, states=4, repeats=2, out=tmp_path / "scans.json"
    )
    rows = chunked_scans.run(options)
    assert written(tmp_path / "scans.json")["rows"] == rows
    assert all(row["apart"] < 1e-5 and row["memory"] < 0.8 and row["time"] > 0 for row in rows.values())


@pytest.mark.slow
def test_curvature_cost(tmp_path):
    figures = curvature_cost.run(curvature_cost.Options(("mlp",), 8, 32, repeats=2, out=tmp_path / "cost.json"))
    assert written(tmp_path / "cost.json")["figures"] == figures
    assert figures["mlp"]["gradient"]["ratio"] == 1
    assert all(row["milliseconds"] > 0 for row in figures["mlp"].values())
    assert figures["mlp"]["GGN product"]["kept_bytes"] > 0


def test_the_noise_scale_grows(tmp_path):
    rows = gradient_noise.run(gradient_noise.Options(hidden=(16,), epochs=12, every=4, out=tmp_path))
    assert [row["epoch"] for row in rows] == [4, 8, 12]
    assert rows[-1]["cost"] < rows[0]["cost"] / 2
    assert rows[-1]["test_accuracy"] > 0.85
    assert rows[-1]["noise_scale"] > 1.3 * rows[0]["noise_scale"] > 30
    assert all(row["noise_scale"] == row["trace"] / row["sq_norm"] for row in rows)
    assert written(tmp_path / "figures.json")["rows"] == rows
    assert (tmp_path / "noise_scale.png").stat().st_size > 10_000


def test_kfac_digits(tmp_path):
    """Both learn, K-FAC in fewer steps at these rates; the files are there."""
    options = {"sizes": (16,), "epochs": 4, "adam_rates": (0.01,), "kfac_rates": (0.3,)}
    runs = kfac_digits.run(kfac_digits.KfacDigits(**options, out=tmp_path, result=tmp_path / "result.json"))["runs"]
    adam, kfac = runs["adam"][0.01], runs["kfac"][0.3]
    assert kfac["train_loss"][-1] < adam["train_loss"][-1] < 2.3
    assert kfac["steps"] == [11, 22, 33, 44]
    assert kfac["seconds"] == sorted(kfac["seconds"])
    assert written(tmp_path / "result.json")["best"] == {"adam": 0.01, "kfac": 0.3}
    assert (tmp_path / "kfac_digits.png").stat().st_size > 0


def test_memory_of_linear_cross_entropy_does_not_grow_with_the_tokens(tmp_path, capsys):
    sizes = {"tokens": (64, 256), "classes": 512, "n_in": 4, "chunk": 32}
    options = linear_cross_entropy_memory.Options(**sizes, repeats=1, out=tmp_path / "figures.json")
    few, many = linear_cross_entropy_memory.run(options)
    assert many["whole_temp_bytes"] > 3 * few["whole_temp_bytes"]
    assert many["chunked_temp_bytes"] < 1.2 * few["chunked_temp_bytes"]
    assert many["temp_ratio"] < 0.2
    assert max(row["largest_error"] for row in (few, many)) < 1e-5
    assert written(options.out)["rows"] == [few, many]
    assert "memory ratio" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_per_example_cost_of_every_way(tmp_path):
    sizes = {"batch": 4, "width": 8, "block_batch": 2, "features": 8, "tokens": (2, 8)}
    options = per_example_cost.Options(**sizes, repeats=1, out=tmp_path / "figures.json")
    figures = per_example_cost.run(options)
    assert written(options.out).items() >= figures.items()
    for part in ("mlp", "block"):
        assert {"gradient", "norms", "clipped", "norms, vmap(jax.grad)"} <= figures[part].keys()
        assert all(way["ms"] > 0 and way["temp_bytes"] > 0 for way in figures[part].values())
        assert figures[part]["gradient"]["ratio"] == 1
    assert [(row["tokens"], row["chosen"]) for row in figures["tokens"]] == [(2, "gram"), (8, "direct")]


@pytest.mark.slow
def test_growth_with_the_vocabulary_is_linear_in_memory(tmp_path):
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        found = growth.run(growth.Options(axes=("vocabulary",), doublings=2, rounds=2, out=tmp_path / "growth.json"))
    assert [point["size"] for point in found["points"]["vocabulary"]] == [4096, 8192, 16384]
    exponents = found["exponents"]["vocabulary"]
    assert all(0.9 < exponents[way]["memory"] < 1.1 for way in ("hand", "baseline"))
    assert written(tmp_path / "growth.json")["exponents"] == found["exponents"]
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_an_exponent_is_the_slope_of_the_logarithms():
    points = [{"size": n, "hand": {"time": 3 * n**2}} for n in (2, 4, 8)]
    assert growth.exponent(points, "hand", "time") == pytest.approx(2)


@pytest.mark.slow
def test_more_noise_in_private_training_is_less_accuracy(tmp_path, monkeypatch):
    """ε in the accountant's place is 1 / σ: it is not installed everywhere."""
    monkeypatch.setattr(private_digits, "spent", lambda options, examples: lambda sigma: 1 / sigma)
    options = private_digits.Options(noise_multipliers=(40.0, 1.0), out=tmp_path, hidden=(16,), steps=40)
    rows = private_digits.run(options)
    noisy, clear, plain = (row["test_accuracy"] for row in rows)
    assert noisy + 0.2 < clear < plain + 0.05
    assert clear > 0.7
    assert [row["epsilon"] for row in rows] == [1 / 40, 1.0, None]
    assert written(tmp_path / "figures.json")["rows"] == rows
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


@pytest.mark.third_party
def test_the_accountant_of_private_training():
    """Against the Gaussian mechanism's own ε, without sampling: 4.377 at σ = 1, δ = 1e-5 (Balle and Wang 2018)."""
    pytest.importorskip("dp_accounting", reason="dp-accounting, of the extra `privacy`, is not installed")
    every, sampled = (
        private_digits.spent(private_digits.Options(batch=batch, steps=1, delta=1e-5), 100)(1.0) for batch in (100, 10)
    )
    assert every == pytest.approx(4.377, abs=2e-3)
    assert 0 < sampled < every


@pytest.mark.slow
def test_memory_of_a_flow_grows_with_the_root_of_its_steps_or_not_at_all(tmp_path):
    options = ode_memory.Options(steps=(4, 64), width=16, batch=256, out=tmp_path / "figures.json")
    few, many = ode_memory.run(options)
    more = {way: (many[way]["temp_bytes"] - few[way]["temp_bytes"]) / (256 * 16 * 4) for way in ode_memory.WAYS}
    assert more["adjoint"] < 1
    assert more["checkpoints"] <= 2 * (8 - 2) + 1
    assert more["jax.grad"] >= 60 * 4
    assert many["checkpoints"]["error"] < 1e-5
    assert written(options.out)["rows"] == [few, many]


@pytest.mark.slow
def test_reversible_memory_is_the_same_at_any_depth_and_rounding_stays_near_the_plain_forms(tmp_path):
    options = reversible_memory.Options(depths=(4, 16), width=16, batch=256, out=tmp_path / "figures.json")
    four, sixteen = reversible_memory.run(options)
    assert sixteen["sequence"]["temp_bytes"] < 1.05 * four["sequence"]["temp_bytes"]
    # Each of the 12 further blocks keeps what its two inner layers read and gave: two (batch, width) of float32.
    assert sixteen["repeat"]["temp_bytes"] - four["repeat"]["temp_bytes"] >= 12 * 2 * 256 * 16 * 4
    for row in (four, sixteen):
        assert row["sequence"]["error"] < 10 * row["repeat"]["error"] < 1e-4
    assert written(options.out)["rows"] == [four, sixteen]


@pytest.mark.slow
def test_two_phases_of_every_convolutional_network_are_measured(tmp_path):
    options = two_phase_convolution.Options(width=4, size=4, batch=2, steps=2, out=tmp_path / "figures.json")
    rows = two_phase_convolution.run(options)
    assert [row["network"] for row in rows] == list(two_phase_convolution.networks(4))
    assert written(options.out)["rows"] == rows


def test_two_phases_of_a_deep_stack_take_a_part_of_the_memory_and_end_at_the_same_parameters(tmp_path):
    options = two_phase_memory.Options(width=64, depth=24, batches=(4,), steps=3, out=tmp_path / "figures.json")
    rows = two_phase_memory.run(options)
    assert [row["optimizer"] for row in rows] == ["sgd", "adam"]
    assert all(row["memory_ratio"] < 0.5 and row["distance"] < 1e-6 for row in rows)
    assert written(options.out)["rows"] == rows
