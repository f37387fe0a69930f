"""A published run again, digit for digit: Michael Nielsen's "Neural Networks and Deep Learning", chapter 3.

His [784, 30, 10] sigmoid network overfits the first 1,000 training images of MNIST: cross-entropy, learning rate 0.5,
batches of 10, 400 epochs. `overfitting.json` beside his book has, epoch by epoch, the cost and the accuracy on the test
images and on the training images. Here his numbers come out of gradients by hand.
"""

import gzip
import json
import random
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

EPOCHS = 400
SIZES = (784, 30, 10)
TRAINING, BATCH, LEARNING_RATE = 1000, 10, 0.5
SEED = 12345678

MODEL = hg.chain(hg.linear(30), hg.sigmoid(), hg.linear(10), hg.sigmoid())
LOSS = hg.binary_cross_entropy()


def read_idx(path, header_bytes):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header_bytes)


def read_mnist(folder, name):
    """Images as his pickle holds them, uint8 / 256 in float32, here widened to float64; labels as one-hot vectors."""
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz", 8)
    return jnp.asarray((images / np.float32(256)).astype(np.float64)), jnp.asarray(np.eye(10)[labels])


def initial_params():
    """His draws, in his order. He draws twice and keeps the second, which doesn't divide by √n_in."""
    rng = np.random.RandomState(SEED)
    for _ in range(2):
        biases = [rng.randn(n_out, 1) for n_out in SIZES[1:]]
        weights = [rng.randn(n_out, n_in) for n_in, n_out in pairwise(SIZES)]
    first, last = (
        hg.LinearParams(jnp.asarray(w.T), jnp.asarray(b[:, 0])) for w, b in zip(weights, biases, strict=True)
    )
    return first, (), last, ()


def shuffled_orders(epochs):
    """Each epoch's order of the examples, shuffled on from the epoch before as Python 2 did it: (epochs, TRAINING)."""
    rng, order, orders = random.Random(SEED), list(range(TRAINING)), []
    for _ in range(epochs):
        for i in reversed(range(1, TRAINING)):
            j = int(rng.random() * (i + 1))
            order[i], order[j] = order[j], order[i]
        orders.append(list(order))
    return np.array(orders)


@jax.jit
def train_epoch(params, x, y):
    """One epoch, (batches, BATCH, ...): w -= η / BATCH times the sum of the gradients, batch after batch."""
    gradient = hg.grad(MODEL, LOSS)

    def step(params, batch):
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient(params, *batch)), None

    return jax.lax.scan(step, params, (x, y))[0]


@jax.jit
def evaluate(params, x, y):
    """The mean cost, and how many images are right."""
    cost, prediction = hg.objective(MODEL, LOSS, has_aux=True)(params, x, y)
    return cost, jnp.sum(jnp.argmax(prediction, axis=1) == jnp.argmax(y, axis=1))


def run(folder, epochs):
    """The four lists of overfitting.json, in its order."""
    x, y = read_mnist(folder / "mnist", "train")
    x, y = x[:TRAINING], y[:TRAINING]
    test_x, test_y = read_mnist(folder / "mnist", "t10k")
    params, rows = initial_params(), []
    for order in shuffled_orders(epochs):
        params = train_epoch(params, x[order].reshape(-1, BATCH, 784), y[order].reshape(-1, BATCH, 10))
        rows.append((*evaluate(params, test_x, test_y), *evaluate(params, x, y)))
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.slow
def test_overfitting(shared_data):
    published = [
        np.array(column[:EPOCHS]) for column in json.loads((shared_data / "nielsen/overfitting.json").read_text())
    ]
    test_cost, test_accuracy, training_cost, training_accuracy = run(shared_data, EPOCHS)
    np.testing.assert_allclose(test_cost, published[0], rtol=1e-10)
    np.testing.assert_array_equal(test_accuracy, published[1])
    np.testing.assert_allclose(training_cost, published[2], rtol=1e-10)
    np.testing.assert_array_equal(training_accuracy, published[3])
    # It learns: not the same numbers over and over.
    assert training_accuracy[-1] > training_accuracy[0] + 100
