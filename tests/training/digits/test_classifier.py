"""The classifier's options: what they build, and what they refuse."""

from functools import partial

import jax
import numpy as np
import pytest
from helpers import assert_refused, drawn

from handgrad.training.digits import Options, Split, make_optimizer, train_classifier
from handgrad.training.digits.classifier import build, targets

RNG = np.random.default_rng(0)


def test_options_that_make_no_sense():
    assert_refused(
        {
            f"Options: {name} must {must}": partial(Options, **{name: value})
            for name, value, must in (
                ("learning_rate", 0.0, "be a positive number, got 0.0"),
                ("learning_rate", -1.0, "be a positive number, got -1.0"),
                ("learning_rate", float("nan"), "be a positive number, got nan"),
                ("sizes", (8, 0), "be a positive integer, got 0"),
                ("batch", 0, "be a positive integer, got 0"),
                ("epochs", -1, "be a positive integer, got -1"),
                ("seed", -1, "be at least 0, got -1"),
                ("l2", -0.1, "be at least 0, got -0.1"),
            )
        }
    )


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "binary_cross_entropy"])
def test_a_classifier_learns_with_any_loss(loss):
    """Two clouds of points that a line divides."""
    labels = np.arange(200, dtype=np.int32) % 2
    data = Split((RNG.standard_normal((200, 2)) + 6 * labels[:, None]).astype(np.float32), labels)
    options = Options(sizes=(8,), activation="tanh", loss=loss, epochs=10, learning_rate=0.02)
    assert train_classifier(options, data, data).test_accuracy >= 0.97


def test_what_the_options_build():
    """The l2 of ½ λ Σ w² adds λ w to the gradients of weights, and nothing to those of biases."""
    options = Options(sizes=(5, 4), loss="binary_cross_entropy", optimizer="sgd", learning_rate=0.5, l2=0.1)
    model, _ = build(options, 7, 3)
    x = np.ones((2, 7), np.float32)
    params, optimizer = drawn(model, x), make_optimizer(options)
    assert [p.W.shape for p in params["mlp"] if p] == [(7, 5), (5, 4), (4, 3)]
    grads = jax.tree.map(lambda p: RNG.standard_normal(p.shape), params)

    @jax.jit
    def both(params, grads):
        return model.forward(params, x)[0], optimizer.update(grads, optimizer.init(params), params)[0]

    outputs, updates = both(params, grads)
    assert 0 < outputs.min() < outputs.max() < 1
    for update, w, g in zip(*map(jax.tree.leaves, (updates, params, grads)), strict=True):
        np.testing.assert_allclose(update, -0.5 * (g + 0.1 * w if w.ndim > 1 else g), rtol=1e-12)


def test_targets_as_the_loss_takes_them():
    labels = np.array([2, 0])
    assert targets(Options(), labels, 3).tolist() == [2, 0]
    assert targets(Options(loss="l2_loss"), labels, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
