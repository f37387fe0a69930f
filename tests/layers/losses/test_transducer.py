"""transducer_loss at the end of a network."""

import jax
import numpy as np
import pytest
from helpers import assert_same, drawn

import handgrad as hg

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 3, 2))  # of every frame and every number of labels
TARGET = hg.TransducerTarget(np.array([[1, 2], [3, 3], [2, 0]]), np.array([4, 3, 1]), np.array([2, 2, 1]))


def test_a_network():
    """Weights of the examples and all, against jax.grad of the objective."""
    model, loss = hg.chain(hg.linear(4), hg.tanh(), hg.linear(5)), hg.transducer_loss(blank=4, residuals="recompute")
    params, weights = drawn(model, X), np.array([1.0, -0.5, 2.0])

    both = hg.value_and_grad(model, loss), jax.value_and_grad(hg.objective(model, loss))
    assert_same(*jax.jit(lambda params: [way(params, X, TARGET, weights) for way in both])(params), 1e-11)


def test_which_nodes_count():
    counts = hg.transducer_loss().counts(
        jax.eval_shape(hg.transducer_loss().forward, X, TARGET)[1]._replace(
            input_lengths=TARGET.input_lengths, label_lengths=TARGET.label_lengths
        )
    )
    assert np.sum(counts, axis=(1, 2)).tolist() == [4 * 3, 3 * 3, 1 * 2]


@pytest.mark.parametrize("target", [TARGET.labels, tuple(TARGET), None], ids=["labels", "tuple", "None"])
def test_a_target_of_another_kind(target):
    with pytest.raises(hg.InputError, match=r"^transducer_loss: target must be a TransducerTarget, got "):
        hg.transducer_loss().forward(X, target)
