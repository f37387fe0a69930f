"""Every loss reaches its own rule, with its options; one number for each example, any cotangent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import layers

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 3)
A = RNG.standard_normal(SHAPE) * 2
NUMBERS = RNG.standard_normal(SHAPE)
PROBABILITIES = RNG.uniform(0.05, 0.95, SHAPE)
DISTRIBUTIONS = RNG.dirichlet(np.ones(3), SHAPE[:2])
LABELS = np.array([[0, 2], [1, 1], [2, 0], [0, 0]])
BITS = RNG.integers(0, 2, SHAPE)
COUNTS = RNG.poisson(2, SHAPE)
CLASS_WEIGHTS = np.array([0.5, 1.0, 2.0])
DLOSS = np.array([1.0, -2.0, 0.0, 0.25])


def summed(C):
    return C.sum((1, 2))


def huber(delta):
    return lambda a, y: summed(
        jnp.where(jnp.abs(a - y) <= delta, (a - y) ** 2 / 2, delta * jnp.abs(a - y) - delta**2 / 2)
    )


def cross_entropy(epsilon):
    def loss(z, y):
        q = jax.nn.one_hot(y, 3, dtype=z.dtype) if y.ndim == 2 else y
        q = q * (1 - epsilon) + epsilon / 3
        return summed(-q * jnp.log(jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True)))

    return loss


def language_model(z, y):
    s = 2 * jnp.tanh(z / 2)
    q = jax.nn.one_hot(y, 3, dtype=z.dtype) * CLASS_WEIGHTS.reshape(1, 1, 3)
    lse = jnp.log(jnp.exp(s).sum(-1, keepdims=True))
    return summed((y != 0)[..., None] * ((q * (lse - s)).sum(-1, keepdims=True) + 0.1 * lse**2))


def focal(gamma, alpha, scale=2):
    def loss(z, y):
        p = jnp.where(y == 1, 1 / (1 + jnp.exp(-z)), 1 / (1 + jnp.exp(z)))
        return summed(-scale * jnp.where(y == 1, alpha, 1 - alpha) * (1 - p) ** gamma * jnp.log(p))

    return loss


def length(a):
    return jnp.sqrt((a * a).sum(-1, keepdims=True))


LOSSES = {
    "squared_error": (hg.squared_error(), lambda a, y: summed((a - y) ** 2), A, NUMBERS),
    "l2_loss": (hg.l2_loss(), lambda a, y: summed((a - y) ** 2) / 2, A, NUMBERS),
    "absolute_error": (hg.absolute_error(), lambda a, y: summed(jnp.abs(a - y)), A, NUMBERS),
    "huber_loss": (hg.huber_loss(), huber(1.0), A, NUMBERS),
    "huber_loss-0.5": (hg.huber_loss(delta=0.5), huber(0.5), A, NUMBERS),
    "sigmoid_cross_entropy": (
        hg.sigmoid_cross_entropy(),
        lambda z, y: summed(-y * jnp.log(1 / (1 + jnp.exp(-z))) - (1 - y) * jnp.log(1 / (1 + jnp.exp(z)))),
        A,
        PROBABILITIES,
    ),
    "softmax_cross_entropy-labels": (hg.softmax_cross_entropy(), cross_entropy(0), A, LABELS),
    "softmax_cross_entropy-distributions": (hg.softmax_cross_entropy(), cross_entropy(0), A, DISTRIBUTIONS),
    "softmax_cross_entropy-labels-smoothed": (hg.softmax_cross_entropy(0.2), cross_entropy(0.2), A, LABELS),
    "softmax_cross_entropy-smoothed": (
        hg.softmax_cross_entropy(label_smoothing=0.2),
        cross_entropy(0.2),
        A,
        DISTRIBUTIONS,
    ),
    "binary_cross_entropy": (
        hg.binary_cross_entropy(),
        lambda a, y: summed(-y * jnp.log(a) - (1 - y) * jnp.log(1 - a)),
        1 / (1 + np.exp(-A)),
        PROBABILITIES,
    ),
    "softmax_cross_entropy-everything": (
        layers.softmax_cross_entropy(class_weights=CLASS_WEIGHTS, ignore_index=0, z_loss=0.1, softcap=2.0),
        language_model,
        A,
        LABELS,
    ),
    "hinge_loss": (layers.hinge_loss(), lambda a, y: summed(jnp.maximum(0, 1 - a * y)), A, 2 * BITS - 1),
    "focal_loss": (layers.focal_loss(), focal(2, 0.5), A, BITS),
    "focal_loss-1.5-0.25": (layers.focal_loss(1.5, alpha=0.25), focal(1.5, 0.25, 1), A, BITS),
    "kl_divergence": (
        layers.kl_divergence(),
        lambda p, q: summed(q * (jnp.log(q) - p)),
        np.log(PROBABILITIES),
        DISTRIBUTIONS,
    ),
    "kl_divergence-log": (
        layers.kl_divergence(log_target=True),
        lambda p, q: summed(jnp.exp(q) * (q - p)),
        np.log(PROBABILITIES),
        np.log(DISTRIBUTIONS),
    ),
    "poisson_loss": (layers.poisson_loss(), lambda a, y: summed(jnp.exp(a) - y * a), A, COUNTS),
    "poisson_loss-rates": (
        layers.poisson_loss(log_input=False, epsilon=0.1),
        lambda a, y: summed(a - y * jnp.log(a + 0.1)),
        PROBABILITIES,
        COUNTS,
    ),
    "cosine_distance": (
        layers.cosine_distance(),
        lambda a, y: summed(1 - (a * y).sum(-1, keepdims=True) / (length(a) * length(y))),
        A,
        NUMBERS,
    ),
}
every_loss = pytest.mark.parametrize(("loss", "reference", "prediction", "target"), LOSSES.values(), ids=LOSSES.keys())


@every_loss
def test_value_and_gradient(loss, reference, prediction, target):
    @jax.jit
    def both(prediction, target):
        losses, residuals = loss.forward(prediction, target)
        expected, vjp = jax.vjp(lambda prediction: reference(prediction, target), prediction)
        return (losses, loss.backward(residuals, jnp.asarray(DLOSS))), (expected, vjp(jnp.asarray(DLOSS))[0])

    (losses, dprediction), (expected, expected_dprediction) = both(jnp.asarray(prediction), jnp.asarray(target))
    assert losses.shape == (4,)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(
        dprediction, expected_dprediction, rtol=1e-12, atol=1e-12 * float(jnp.abs(expected_dprediction).max())
    )
    assert (dprediction[2] == 0).all()


def test_options_change_the_loss():
    for name, other in (
        ("huber_loss", "huber_loss-0.5"),
        ("softmax_cross_entropy-distributions", "softmax_cross_entropy-smoothed"),
    ):
        one, two = (LOSSES[key][0].forward(A, LOSSES[key][3])[0] for key in (name, other))
        assert jnp.abs(one - two).min() > 1e-3


@every_loss
def test_examples_are_apart(loss, reference, prediction, target):
    """Nothing is averaged: an example's loss and cotangent are those it has alone."""

    @jax.jit
    def run(prediction, target, dloss):
        losses, residuals = loss.forward(prediction, target)
        return losses, loss.backward(residuals, dloss)

    whole = run(prediction, target, DLOSS)
    alone = run(prediction[1:2], target[1:2], DLOSS[1:2])
    for one, every in zip(alone, whole, strict=True):
        np.testing.assert_allclose(one, every[1:2], rtol=1e-14)


def test_a_loss_from_a_rule_of_ones_own():
    def quartic_forward(A, Y, *, scale):
        return scale * jnp.sum((A - Y) ** 4, axis=1), (A, Y)

    def quartic_backward(residuals, dC, *, scale):
        A, Y = residuals
        dA = 4 * scale * dC[:, None] * (A - Y) ** 3
        return dA, -dA

    loss = hg.loss_from_rule(hg.Rule(quartic_forward, quartic_backward), scale=3.0)
    x, y = A[:, 0], NUMBERS[:, 0]
    value, gradient = hg.value_and_grad(hg.identity(), loss, argnums=1)((), jnp.asarray(x), y)
    np.testing.assert_allclose(value, 3 * ((x - y) ** 4).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(gradient, 12 * (x - y) ** 3 / 4, rtol=1e-12)
