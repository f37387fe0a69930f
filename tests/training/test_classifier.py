"""The classifier's options: what they build, and what they refuse."""

import jax
import numpy as np
import pytest

from handgrad import InputError
from handgrad.training import Options, Split, train_classifier
from handgrad.training.classifier import build, is_weight, targets


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, "Options: learning_rate must be a positive number, got 0.0"),
        ({"learning_rate": -1.0}, "Options: learning_rate must be a positive number, got -1.0"),
        ({"learning_rate": float("nan")}, "Options: learning_rate must be a positive number, got nan"),
        ({"sizes": (8, 0)}, "Options: sizes must be a positive integer, got 0"),
        ({"batch": 0}, "Options: batch must be a positive integer, got 0"),
        ({"epochs": -1}, "Options: epochs must be a positive integer, got -1"),
        ({"seed": -1}, "Options: seed must be at least 0, got -1"),
        ({"l2": -0.1}, "Options: l2 must be at least 0, got -0.1"),
    ],
)
def test_options_that_make_no_sense(wrong, message):
    with pytest.raises(InputError) as caught:
        Options(**wrong)
    assert str(caught.value) == message


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "binary_cross_entropy", "l2_loss"])
def test_a_classifier_learns_with_any_loss(loss):
    """Two clouds of points that a line divides."""
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.int32) % 2
    x = (rng.standard_normal((200, 2)) + 6 * labels[:, None]).astype(np.float32)
    data = Split(x, labels)
    options = Options(sizes=(8,), activation="tanh", loss=loss, epochs=10, learning_rate=0.02)
    assert train_classifier(options, data, data).test_accuracy >= 0.97


def test_what_the_options_build():
    model, _ = build(Options(sizes=(5, 4), loss="binary_cross_entropy"), 7, 3)
    params = model.init(jax.random.key(0), np.ones((2, 7), np.float32))
    assert [p.W.shape for p in params["mlp"] if p] == [(7, 5), (5, 4), (4, 3)]
    assert [bool(leaf) for leaf in jax.tree.leaves(is_weight(params))] == [True, False] * 3
    outputs, _ = model.forward(params, np.ones((2, 7), np.float32))
    assert 0 < outputs.min() < outputs.max() < 1


def test_targets_as_the_loss_takes_them():
    labels = np.array([2, 0])
    assert targets(Options(), labels, 3).tolist() == [2, 0]
    assert targets(Options(loss="l2_loss"), labels, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
