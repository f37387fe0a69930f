"""Nielsen's four equations: the matrix form is the sum of the per-example one, and both are backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

NETWORKS = [(1, 1), (3, 2), (4, 1, 3), (5, 4, 3, 2), (2, 6, 1, 4, 3)]
BATCHES = [1, 5]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def draw(sizes, batch):
    """Weights (n_in, n_out) and biases (n_out,) of a sigmoid network, inputs and targets."""
    rng = np.random.default_rng((*sizes, batch))
    weights = [rng.standard_normal(shape) for shape in zip(sizes[:-1], sizes[1:], strict=True)]  # noqa: RUF007
    biases = [rng.standard_normal(n) for n in sizes[1:]]
    return weights, biases, rng.standard_normal((batch, sizes[0])), rng.uniform(0, 1, (batch, sizes[-1]))


def one_example(weights, biases, x, y):
    """His chapter 2: column vectors, w of (n_out, n_in); ∂C/∂b (n_out, 1) and ∂C/∂w (n_out, n_in) of every layer."""
    w, b = [W.T for W in weights], [b[:, None] for b in biases]
    activations, slopes = [x[:, None]], []
    for matrix, bias in zip(w, b, strict=True):
        a = sigmoid(matrix @ activations[-1] + bias)
        activations.append(a)
        slopes.append(a * (1 - a))
    delta = rules.bp1_example(activations[-1] - y[:, None], slopes[-1])
    deltas = [delta]
    for layer in reversed(range(len(w) - 1)):
        delta = rules.bp2_example(w[layer + 1], delta, slopes[layer])
        deltas.insert(0, delta)
    return [
        (rules.bp3_example(delta), rules.bp4_example(a, delta)) for a, delta in zip(activations, deltas, strict=False)
    ]


def mini_batch(weights, biases, X, Y):
    """The same in matrices, a row for each example: the factors db and dW of every layer."""
    activations, slopes = [X], []
    for W, b in zip(weights, biases, strict=True):
        A = sigmoid(activations[-1] @ W + b[None])
        activations.append(A)
        slopes.append(A * (1 - A))
    Delta = rules.bp1_batch(activations[-1] - Y, slopes[-1])
    Deltas = [Delta]
    for layer in reversed(range(len(weights) - 1)):
        Delta = rules.bp2_batch(weights[layer + 1], Delta, slopes[layer])
        Deltas.insert(0, Delta)
    return [(rules.bp3_batch(Delta), rules.bp4_batch(A, Delta)) for A, Delta in zip(activations, Deltas, strict=False)]


networks = pytest.mark.parametrize("sizes", NETWORKS, ids=str)
batches = pytest.mark.parametrize("batch", BATCHES)


def assert_close(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@networks
@batches
def test_the_matrix_form_is_the_sum_of_the_examples(sizes, batch):
    weights, biases, X, Y = draw(sizes, batch)
    examples = [one_example(weights, biases, x, y) for x, y in zip(X, Y, strict=True)]
    factors = mini_batch(weights, biases, X, Y)
    assert len(factors) == len(sizes) - 1
    for layer, (db, dW) in enumerate(factors):
        b_columns, w_matrices = (np.stack([example[layer][i] for example in examples]) for i in (0, 1))
        assert isinstance(db, hg.Total)
        assert isinstance(dW, hg.Outer)
        assert_close(db.sum(), b_columns.sum(0)[:, 0])
        assert_close(dW.sum(), w_matrices.sum(0).T)
        # And not only in the sum: each example's gradient is in the factors.
        assert_close(db.per_example(), b_columns[:, :, 0])
        assert_close(dW.per_example(), w_matrices.transpose(0, 2, 1))


@networks
@batches
def test_both_are_what_the_library_computes(sizes, batch):
    """The same network of `linear` and `sigmoid`, with Nielsen's quadratic cost summed over the examples."""
    weights, biases, X, Y = draw(sizes, batch)
    layers = [layer for n in sizes[1:] for layer in (hg.linear(n), hg.sigmoid())]
    params = tuple(
        entry
        for W, b in zip(weights, biases, strict=True)
        for entry in (hg.LinearParams(*map(jnp.asarray, (W, b))), ())
    )
    value_and_grad = hg.value_and_grad(hg.chain(*layers), hg.l2_loss())
    value, grads = jax.jit(value_and_grad)(params, jnp.asarray(X), jnp.asarray(Y), jnp.ones(batch))
    A = X
    for W, b in zip(weights, biases, strict=True):
        A = sigmoid(A @ W + b[None])
    assert_close(value, ((A - Y) ** 2).sum() / 2)
    for layer, (db, dW) in enumerate(mini_batch(weights, biases, X, Y)):
        assert_close(grads[2 * layer].W, dW.sum())
        assert_close(grads[2 * layer].b, db.sum())


def test_against_autodiff():
    """The oracle of all: the cost as one function of weights and biases."""
    weights, biases, X, Y = draw((4, 3, 2), 5)

    def cost(weights, biases):
        A = X
        for W, b in zip(weights, biases, strict=True):
            A = jax.nn.sigmoid(A @ W + b[None])
        return jnp.sum((A - Y) ** 2) / 2

    for found, expected in zip(
        zip(*mini_batch(weights, biases, X, Y), strict=True),
        reversed(jax.grad(cost, (0, 1))(weights, biases)),
        strict=True,
    ):
        for factor, gradient in zip(found, expected, strict=True):
            assert_close(factor.sum(), gradient)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("bp1_example", (np.ones((3, 1)), np.ones((1, 1)))),
        ("bp1_example", (np.ones((3, 1)), np.ones((1, 3)))),
        ("bp2_example", (np.ones((2, 3)), np.ones((2, 1)), np.ones((1, 1)))),
        ("bp2_example", (np.ones((2, 3)), np.ones((2, 1)), np.ones((1, 3)))),
        ("bp1_batch", (np.ones((4, 3)), np.ones((4, 1)))),
        ("bp1_batch", (np.ones((4, 3)), np.ones((1, 3)))),
        ("bp2_batch", (np.ones((3, 2)), np.ones((4, 2)), np.ones((4, 1)))),
        ("bp2_batch", (np.ones((3, 2)), np.ones((4, 2)), np.ones((1, 3)))),
    ],
)
def test_nothing_is_broadcast_in_silence(function, arguments):
    with pytest.raises(hg.InputError, match=rf"^{function}: .* must have shape .*, got float64 "):
        getattr(rules, function)(*arguments)
