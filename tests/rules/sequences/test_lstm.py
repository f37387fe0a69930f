"""lstm by published numbers. What it shares with rnn is in test_rnn.py."""

import jax
import numpy as np
from helpers import passes

from handgrad import rules

# Figures of the course Sequence Models (Ng, Katanforoosh and Bensouda Mourri, deeplearning.ai, 2018): the exercise of
# its first week derives these passes by hand, draws from NumPy's seed 1, examples as columns, and prints figures.


def columns(arrays, order="fiog"):
    """Weights and biases of the four gates as W, U and b of ours, in the order i, f, g, o."""
    weights, biases = (np.concatenate([arrays[k][order.index(gate)] for gate in "ifgo"]) for k in (0, 1))
    return weights[:, 5:].T, weights[:, :5].T, biases[:, 0]


def test_the_lstm_of_a_course():
    """One step of ten examples, and back, from cotangents of both states."""
    draw = np.random.RandomState(1).randn
    X, H0, C0 = draw(3, 10), draw(5, 10), draw(5, 10)
    W, U, b = columns(list(zip(*((draw(5, 8), draw(5, 1)) for _ in range(4)), strict=True)))
    draw(2, 5), draw(2, 1)  # the readout's
    dlast = draw(5, 10).T, draw(5, 10).T
    arguments = X.T[:, None], W, U, b, H0.T, C0.T
    run = jax.jit(lambda dY, *arguments: passes(rules.lstm, dY, *arguments))
    (_, (H_last, C_last)), (dX, dW, dU, db, dH0, dC0, _) = run((np.zeros((10, 1, 5)), dlast), *arguments)
    np.testing.assert_allclose(H_last[:4, 4], [-0.66408471, 0.0036921, 0.02088357, 0.22834167], atol=6e-9)
    np.testing.assert_allclose(C_last[:4, 2], [0.63267805, 1.00570849, 0.35504474, 0.20690913], atol=6e-9)
    found = [dX[2, 0, 1], dH0[3, 2], dC0[3, 2], dU[1, 8], dU[2, 1], dU[1, 13], dU[2, 16]]
    printed = [3.23055911511, -0.0639621419711, 0.797522038797]  # then of f, i, g and o
    printed += [-0.147954838164, 1.05749805523, 2.30456216369, 0.331311595289]
    np.testing.assert_allclose(found, printed, rtol=5e-12)
    np.testing.assert_allclose(db[4::5], [-0.40142491, 0.18864637, 0.25587763, 0.13893342], atol=6e-9)
    assert dW.shape == (3, 20)
