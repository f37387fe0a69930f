"""Nielsen's four equations: the matrix form is the sum of the per-example one, and both are backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules
from handgrad.factors import Outer, Total

NETWORKS = [(1, 1), (3, 2), (4, 1, 3), (5, 4, 3, 2), (2, 6, 1, 4, 3)]
BATCHES = [1, 5]


def sigmoid(z):
    return 1 / (1 + np.exp(-z)) if isinstance(z, np.ndarray) else 1 / (1 + jnp.exp(-z))


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


def assert_close(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def of_library(weights, biases, X, Y):
    """Value and gradients of the same network of `linear` and `sigmoid`."""
    layers = [layer for b in biases for layer in (hg.linear(len(b)), hg.sigmoid())]
    params = tuple(
        entry for W, b in zip(weights, biases, strict=True) for entry in (hg.LinearParams(jnp.asarray(W), b), ())
    )
    value, grads = hg.value_and_grad(hg.chain(*layers), hg.l2_loss())(params, X, Y, jnp.ones(len(X)))
    return value, grads[::2]


def of_autodiff(weights, biases, X, Y):
    """Nielsen's quadratic cost, summed over the examples, as one function of weights and biases."""

    def cost(weights, biases):
        A = X
        for W, b in zip(weights, biases, strict=True):
            A = jax.nn.sigmoid(A @ W + b[None])
        return jnp.sum((A - Y) ** 2) / 2

    value, grads = jax.value_and_grad(cost, (0, 1))(weights, biases)
    return value, list(zip(*grads, strict=True))


@pytest.mark.parametrize("sizes", NETWORKS, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_both_forms_are_backpropagation(sizes, batch):
    """The matrix form is the sum of the examples; it is what the library computes, and autodiff."""
    drawn = draw(sizes, batch)
    examples = [one_example(*drawn[:2], x, y) for x, y in zip(*drawn[2:], strict=True)]

    def run(*drawn):
        factors = mini_batch(*drawn)
        sums = [(db.sum(), dW.sum(), db.per_example(), dW.per_example()) for db, dW in factors]
        return factors, sums, of_library(*drawn), of_autodiff(*drawn)

    factors, sums, (value, by_library), (cost, by_autodiff) = jax.jit(run)(*drawn)
    assert_close(value, cost)
    assert len(factors) == len(sizes) - 1
    for layer, (db, dW, each_db, each_dW) in enumerate(sums):
        assert [type(factor) for factor in factors[layer]] == [Total, Outer]
        b_columns, w_matrices = (np.stack([example[layer][i] for example in examples]) for i in (0, 1))
        for found, summed in ((db, b_columns.sum(0)[:, 0]), (dW, w_matrices.sum(0).T)):
            assert_close(found, summed)
        # And not only in the sum: each example's gradient is in the factors.
        assert_close(each_db, b_columns[:, :, 0])
        assert_close(each_dW, w_matrices.transpose(0, 2, 1))
        for dW_too, db_too in (by_library[layer], by_autodiff[layer]):
            assert_close(dW_too, dW)
            assert_close(db_too, db)


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
