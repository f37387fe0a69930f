"""From training to inference: the statistics of every batch norm in a model, averaged, and one tree of parameters."""

import jax
import numpy as np
from helpers import drawn

import handgrad as hg
from handgrad import layers

X = np.random.default_rng(0).standard_normal((4, 3, 5)) + 1
MOMENTUM = 0.25


def network(first, second):
    return hg.chain(stem=hg.linear(6), norm=first, kink=hg.relu(), block=hg.residual(hg.chain(hg.linear(6), second)))


def test_from_training_to_inference():
    """The docs' line: statistics beside value_and_grad, in one jit. With the batch's own statistics as given ones, the
    whole network predicts the same; under jit, as arguments."""
    training = network(layers.batch_norm(eps=0.1), layers.batch_norm(residuals="recompute"))
    params = drawn(training, X)

    @jax.jit
    def step(params, running, x, target):
        value, grads = hg.value_and_grad(training, hg.l2_loss())(params, x, target)
        y, residuals = training.forward(params, x)
        seen = layers.batch_statistics(residuals)
        running = jax.tree.map(lambda old, new: (1 - MOMENTUM) * old + MOMENTUM * new, running, seen)
        return y, seen, running, (value, grads)

    @jax.jit
    def predict(params, statistics, x):
        first, second = statistics
        model = network(layers.batch_norm_inference(*first, eps=0.1), layers.batch_norm_inference(*second))
        return model.forward(params, x)[0], model.forward(params, x[:1])[0]

    start = (layers.BatchStatistics(np.zeros(6), np.ones(6)),) * 2
    y, seen, running, _ = jax.tree.map(np.asarray, step(params, start, X, np.ones((4, 3, 6))))
    first, second = seen
    W, b = map(np.asarray, params["stem"])
    Z = X @ W + b
    np.testing.assert_allclose(first, (Z.mean((0, 1)), Z.var((0, 1))), rtol=1e-12)
    assert second.mean.shape == second.variance.shape == (6,)
    assert np.abs(first.mean - second.mean).max() > 1e-3
    for found, (mean, variance) in zip(running, seen, strict=True):
        np.testing.assert_allclose(found, (0.25 * mean, 0.75 + 0.25 * variance), rtol=1e-12)
    whole, alone = predict(params, seen, X)
    np.testing.assert_allclose(whole, y, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(alone, y[:1], rtol=1e-11, atol=1e-13)


def test_other_models():
    """None without a batch norm; stacked under repeat."""

    def statistics(model):
        return jax.eval_shape(lambda params: layers.batch_statistics(model.forward(params, X)[1]), drawn(model, X))

    assert statistics(network(layers.layer_norm(), layers.rms_norm())) == ()
    (seen,) = statistics(hg.repeat(hg.chain(hg.linear(5), layers.batch_norm()), 3))
    assert seen.mean.shape == seen.variance.shape == (3, 5)
