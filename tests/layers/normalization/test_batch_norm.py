"""From training to inference: the statistics of every batch norm in a model, averaged, and one tree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 3, 5)) + 1)


def drawn(model):
    """Parameters of the model, none of them zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(model.init, KEY, X))


def network(first, second):
    return hg.chain(stem=hg.linear(6), norm=first, bend=hg.relu(), block=hg.residual(hg.chain(hg.linear(6), second)))


def test_the_statistics_of_a_model():
    model = network(layers.batch_norm(), layers.batch_norm())
    params = drawn(model)
    first, second = jax.jit(lambda params: layers.batch_statistics(model.forward(params, X)[1]))(params)
    W, b = map(np.asarray, params["stem"])
    Z = np.asarray(X) @ W + b
    np.testing.assert_allclose(first.mean, Z.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(first.variance, Z.var((0, 1)), rtol=1e-12)
    assert second.mean.shape == second.variance.shape == (6,)
    assert np.abs(np.asarray(first.mean) - second.mean).max() > 1e-3


def test_no_batch_norm_no_statistics():
    model = network(layers.layer_norm(), layers.rms_norm())
    assert jax.eval_shape(lambda params: layers.batch_statistics(model.forward(params, X)[1]), drawn(model)) == ()


def test_stacked_under_repeat():
    model = hg.repeat(hg.chain(hg.linear(5), layers.batch_norm()), 3)
    (seen,) = jax.eval_shape(lambda params: layers.batch_statistics(model.forward(params, X)[1]), drawn(model))
    assert seen.mean.shape == seen.variance.shape == (3, 5)


def test_the_parameters_of_training_serve_for_inference():
    """With the batch's own statistics as given ones, the whole network predicts the same; under jit, as arguments."""
    training = network(layers.batch_norm(eps=0.1), layers.batch_norm(residuals="recompute"))
    params = drawn(training)

    @jax.jit
    def train(params):
        y, residuals = training.forward(params, X)
        return y, layers.batch_statistics(residuals)

    @jax.jit
    def predict(params, statistics, x):
        first, second = statistics
        model = network(layers.batch_norm_inference(*first, eps=0.1), layers.batch_norm_inference(*second))
        return model.forward(params, x)[0]

    expected, statistics = train(params)
    np.testing.assert_allclose(predict(params, statistics, X), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(predict(params, statistics, X[:1]), np.asarray(expected)[:1], rtol=1e-11, atol=1e-13)


def test_running_averages_in_a_training_step():
    """The docs' line: statistics beside value_and_grad, in one jit."""
    model, loss, momentum = network(layers.batch_norm(), layers.batch_norm()), hg.l2_loss(), 0.25
    params = drawn(model)

    @jax.jit
    def step(params, running, x, target):
        value, grads = hg.value_and_grad(model, loss)(params, x, target)
        seen = layers.batch_statistics(model.forward(params, x)[1])
        running = jax.tree.map(lambda old, new: (1 - momentum) * old + momentum * new, running, seen)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), running, value

    start = (layers.BatchStatistics(jnp.zeros(6), jnp.ones(6)),) * 2
    seen = jax.jit(lambda params: layers.batch_statistics(model.forward(params, X)[1]))(params)
    seen = jax.tree.map(np.asarray, seen)
    _, running, _ = step(params, start, X, jnp.ones((4, 3, 6)))
    for found, (mean, variance) in zip(running, seen, strict=True):
        np.testing.assert_allclose(found.mean, 0.25 * mean, rtol=1e-12)
        np.testing.assert_allclose(found.variance, 0.75 + 0.25 * variance, rtol=1e-12)
