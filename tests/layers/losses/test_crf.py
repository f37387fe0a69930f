"""crf and crf_loss at the end of a network: gradients, factors, folds, lengths, decoding, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, drawn

import handgrad as hg
from handgrad import layers

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((3, 4, 2)), np.array([[0, 1, 2, 1], [2, 2, 0, 7], [1, -1, 9, 0]])
LENGTHS, WEIGHTS = np.array([4, 3, 1]), np.array([1.0, -0.5, 2.0])
MODEL = hg.chain(layers.each_step(hg.chain(hg.linear(4), hg.tanh())), layers.each_step(hg.linear(3)), hg.crf())


def test_a_network_of_sequences():
    """Weights of the examples and all, against autodiff of the objective; each example's gradient, of every parameter,
    against that of the example alone."""
    x, loss = hg.Sequences(X, LENGTHS), hg.crf_loss()
    params = drawn(MODEL, x)

    @jax.jit
    def every_way(params):
        losses, factors = hg.value_and_factors(MODEL, loss)(params, x, LABELS)
        autodiff = jax.value_and_grad(hg.objective(MODEL, loss))(params, x, LABELS, WEIGHTS)
        by_hand = hg.value_and_grad(MODEL, loss)(params, x, LABELS, WEIGHTS)
        jacobian = jax.jacrev(lambda p: loss.forward(MODEL.forward(p, x)[0], LABELS)[0])(params)
        norms = jnp.stack([jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(jacobian)])
        return (
            (by_hand, hg.per_example_grads(factors), hg.sq_norms(factors)),
            (autodiff, jacobian, jnp.sum(norms, 0)),
            losses,
        )

    found, expected, losses = every_way(params)
    assert losses.shape == (3,)
    assert_same(found, expected, 1e-11)


def test_without_ends_or_lengths():
    model = hg.chain(hg.linear(3), hg.crf(ends=False))
    params, loss = drawn(model, X), hg.crf_loss(residuals="recompute")
    assert params[1][1:] == (None, None)
    assert jax.tree.structure(jax.eval_shape(hg.grad(model, loss), params, X, LABELS)) == jax.tree.structure(params)


def test_the_best_of_all_sequences():
    """One by one, of four, three and one steps; in NumPy."""
    Z, W, start, end = (RNG.standard_normal(shape) for shape in ((3, 4, 3), (3, 3), 3, 3))

    def score(z, y):
        steps = z[range(len(y)), y].sum() + W[y[:-1], y[1:]].sum()
        return start[y[0]] + steps + end[y[-1]]

    found = np.asarray(jax.jit(hg.crf_decode)(hg.CrfScores(Z, W, start, end, LENGTHS)))
    for tags, z, length in zip(found, Z, LENGTHS, strict=True):
        every = [np.array(y) for y in itertools.product(range(3), repeat=int(length))]
        best = max(every, key=lambda y, z=z: score(z, y))
        assert tags.tolist() == [*best, *[-1] * (4 - length)]


def test_bad_input():
    scores = hg.CrfScores(X, np.ones((2, 2)))
    params = layers.CrfParams(np.ones((2, 2)))
    assert_refused(
        {
            "crf: params must be CrfParams, got tuple": lambda: hg.crf().forward((), X),
            r"crf: dy must be CrfScores, got float64 \(3, 4, 2\)": lambda: hg.crf().backward(False, X),
            r"crf_loss: prediction must be CrfScores, as `crf` makes them, got float64 \(3, 4, 2\)": lambda: (
                hg.crf_loss().forward(X, LABELS)
            ),
            "crf_loss_forward: labels must be integers .*": lambda: hg.crf_loss().forward(scores, X),
            r"crf_loss_forward: W must have shape \(3, 3\) .*": lambda: hg.crf_loss().forward(
                hg.crf().forward(params, np.ones((3, 4, 3)))[0], LABELS
            ),
        }
    )
