"""The studies run, and find what they claim."""

import json

import digits
import numpy as np
import pytest
import single_weight
import two_layer_chain

from handgrad.training.digits import Options


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


def test_mnist(shared_data, tmp_path):
    """First 10,000 training images, two epochs."""
    options = Options(epochs=2, sizes=(100,))
    trained = digits.run(digits.Digits(options, data_dir=shared_data / "mnist", out=tmp_path), progress=False)
    assert trained.test_accuracy >= 0.92
