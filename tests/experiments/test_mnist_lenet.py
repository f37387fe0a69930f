"""LeNet-5's study: a tiny run on files made here, and one epoch of MNIST where it is at hand."""

import json

import mnist_lenet
import numpy as np
import pytest
from training.digits.test_data import idx

from handgrad.training.digits.data import MNIST

RNG = np.random.default_rng(0)


@pytest.fixture
def two_digits(tmp_path):
    """Images that are bright above or below, 40 to learn and 20 to test."""
    for (images, labels), n in zip(MNIST.values(), (40, 20), strict=True):
        digits = np.arange(n) % 2
        bright = np.arange(28)[None, :, None] // 14 == digits[:, None, None]
        pixels = np.where(bright, 200, 20) + RNG.integers(0, 20, (n, 28, 28))
        (tmp_path / images).write_bytes(idx(pixels.astype(np.uint8)))
        (tmp_path / labels).write_bytes(idx(digits.astype(np.uint8)))
    return tmp_path


@pytest.mark.slow
def test_a_tiny_run_twice_to_the_bit(two_digits):
    result = two_digits / "result.json"
    options = mnist_lenet.MnistLenet(two_digits, images=30, epochs=3, batch=5, learning_rate=3e-3, out=result)
    runs = [mnist_lenet.run(options, progress=False) for _ in range(2)]
    assert runs[0]["test_accuracy"] == 1
    assert [h["loss"] for h in runs[0]["history"]] == [h["loss"] for h in runs[1]["history"]]
    written = json.loads(result.read_text())
    assert written["parameters"] == 61706
    assert written["options"]["images"] == 30


@pytest.mark.slow
def test_one_epoch(shared_data, tmp_path):
    """The first 10,000 training images once; the study itself takes 12 epochs to 98 %."""
    options = mnist_lenet.MnistLenet(shared_data / "mnist", epochs=1, out=tmp_path / "figures.json")
    figures = mnist_lenet.run(options, progress=False)
    assert figures["test_accuracy"] >= 0.93
