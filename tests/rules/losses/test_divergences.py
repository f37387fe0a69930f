"""Divergences: equivalent forms, what never happens, and every digit over the whole range of float32 and bfloat16."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from helpers import optimized_jit
from precision import autodiff, grid, over_the_whole_range
from rules.losses.rows import CHANCES, assert_edges, both, outcomes, subject
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
A, Y = RNG.standard_normal((2, 4, 5))
DC = np.array([1.0, -2.0, 0.5, 0.25])
COUNTS = [0.0, 1.0, 2.0, 7.0, 1000.0]


def beside(a, y):
    """e^a − y."""
    return np.where(np.abs(a) < 0.5, np.expm1(a) + (1 - y), np.exp(a) - y)


def poisson(full, **more):
    def truth(a, y, d):
        n = np.where(full & (y > 1), y, 1)
        stirling = np.where(full & (y > 1), n * np.log(n) - n + np.log(2 * np.pi * n) / 2, 0)
        slope = np.where(full & (y > 1), np.log(n) + 0.5 / n, 0) - a
        return np.exp(a) - y * a + stirling, d * beside(a, y), d * slope

    moved = {  # e^a, y a and y log y cancel
        "C": lambda a, y, d: np.abs(a) * np.maximum(y, np.exp(a)) + full * y * np.log(np.maximum(y, 1)),
        "dA": lambda a, y, d: np.abs(d * a) * np.exp(a),
        **({"dY": lambda a, y, d: np.abs(d * a)} if full else {}),
    }
    name = "full" if full else ""
    return subject("poisson_loss", truth, COUNTS, name=name, options={"full": full}, moved=moved, **more)


def kl_divergence(ell, q, d):
    log_q = np.log(np.where(q == 0, 1, q))
    return q * (log_q - ell), -d * q, d * np.where(q == 0, -ell, log_q - ell + 1)


def kl_divergence_of_logarithms(ell, y, d):
    q = np.exp(y)
    return q * (y - ell), -d * q, d * q * (y - ell + 1)


of_logarithms = {"outputs": "C dL dY", "numbers": lambda dtype: grid(dtype)[grid(dtype) <= 0]}
SUBJECTS = [
    poisson(False, rivals={"jax": autodiff(lambda a, y: jnp.exp(a) - y * a)}),
    poisson(True),
    subject(
        "poisson_loss",
        lambda a, y, d: (a - y * np.log(a + 1e-8), d * (a - y + 1e-8) / (a + 1e-8), -d * np.log(a + 1e-8)),
        COUNTS,
        name="rates",
        numbers=lambda dtype: grid(dtype)[grid(dtype) >= 0],
        options={"log_input": False},
        moved={
            "C": lambda a, y, d: y * (1 + np.abs(np.log(a + 1e-8))),
            "dA": lambda a, y, d: np.abs(d) * np.where(y == 0, 0, 1e-8 / (a + 1e-8)),
            "dY": lambda a, y, d: np.abs(d * a) / (a + 1e-8),
        },
    ),
    subject(
        "kl_divergence",
        kl_divergence,
        CHANCES,
        rivals={"optax": autodiff(lambda ell, q: q * (jnp.log(q) - ell))},
        moved={"C": lambda ell, q, d: q * np.abs(ell), "dY": lambda ell, q, d: np.abs(d * ell)},
        **of_logarithms,
    ),
    subject(
        "kl_divergence",
        kl_divergence_of_logarithms,
        (0.0, -0.5, -3.0, -20.0, -80.0),
        name="log",
        options={"log_target": True},
        moved={"dY": lambda ell, y, d: np.abs(d * ell) * np.exp(y)},  # log q − ℓ + 1
        **of_logarithms,
    ),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_edges():
    """A class ruled out by prediction and target, a rate of 0 and no event, a weight of 0, large and small numbers."""
    L = [[np.log(0.25), -np.inf, np.log(0.75)]]
    events = [[1.0, 0.0, 2.0]]
    assert_edges(
        zero_times_infinity=[
            ("kl_divergence", L, [[0.5, 0.0, 0.5]]),
            ("kl_divergence", L, [[-0.7, -np.inf, -0.7]], {"log_target": True}),
            ("poisson_loss", [[0.5, -np.inf, 1.0]], events),
            ("poisson_loss", [[0.5, -np.inf, 1.0]], events, {"full": True}),
            ("poisson_loss", [[0.5, 0.0, 1.0]], events, {"log_input": False}),
        ],
        weightless=[
            ("kl_divergence", [[-np.inf]], [[1.0]]),
            ("poisson_loss", [[np.inf]], [[1.0]]),
            ("poisson_loss", [[np.inf]], [[1.0]], {"log_input": False}),
        ],
        far=[
            ("kl_divergence", [[-1.0, -1.0, -0.5]], [[0.0, 0.5, 0.5]]),
            ("poisson_loss", [[1.0, 2.0, 0.5]], [[0.0, 3.0, 1.0]], {"log_input": False}),
        ],
    )


def test_a_class_ruled_out_by_teacher_and_student():
    """The whole way to the teacher's logits, and as if the class didn't exist; for the cross-entropy too."""

    def divergence(z, t):
        return rules.kl_divergence(rules.log_softmax(z), rules.softmax(t)).sum()

    def cross_entropy(z, t):
        return rules.softmax_cross_entropy(z, rules.softmax(t)).sum()

    @optimized_jit
    def gradients(z, t):
        return [jax.grad(loss, argnums=(0, 1))(z, t) for loss in (divergence, cross_entropy)]

    z, t, kept = np.array([[1.0, 2.0, -np.inf, 0.5]]), np.array([[0.3, -1.0, -np.inf, 2.0]]), np.array([0, 1, 3])
    found, expected = (jax.tree.leaves(gradients(*of)) for of in ((z, t), (z[:, kept], t[:, kept])))
    for one, other in zip(map(np.asarray, found), expected, strict=True):
        np.testing.assert_allclose(one[:, kept], other, rtol=1e-12, atol=1e-15)
        assert one[0, 2] == 0


def test_kl_divergence_is_cross_entropy_without_the_entropy():
    @optimized_jit
    def run(Z, Y):
        Q = jax.nn.softmax(Y)
        C, dZ, *_ = both("softmax_cross_entropy", Z, Q, dC=DC)
        L, of_softmax = rules.log_softmax_forward(Z)
        divergence, dL, _ = both("kl_divergence", L, Q, dC=DC)
        one = divergence, rules.log_softmax_backward(of_softmax, dL)[0]
        return one, (C + (Q * jnp.log(Q)).sum(1), dZ), both("kl_divergence", L, jnp.exp(L))[0]

    one, other, of_itself = run(A, Y)
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.abs(of_itself).max() < 1e-15


def test_kl_divergence_of_what_never_happens():
    """q = 0 costs nothing, of whatever prediction, and its own slope leaves out log q + 1."""
    q = np.array([[0.0, 0.5, 0.5]])
    L, possible = (np.log([[p, 0.25, 0.75]]) for p in (1e-300, np.exp(-3.0)))
    L[0, 0] = -np.inf
    with np.errstate(divide="ignore"):
        rows = (L, q), (possible, q), (L, np.log(q), {"log_target": True})
    (C, dL, _), (_, _, dQ), (of_logs, dL_of_logs, dY) = outcomes([("kl_divergence", *row) for row in rows])
    np.testing.assert_allclose([C, of_logs], np.full((2, 1), 0.5 * np.log(2) + 0.5 * np.log(2 / 3)), rtol=1e-14)
    assert dL.tolist() == [[0, -0.5, -0.5]]
    np.testing.assert_allclose(dQ[0, 0], 3, rtol=1e-15)
    np.testing.assert_allclose(dL_of_logs, dL, rtol=1e-15)
    assert dY[0, 0] == 0
    assert np.isfinite(dY).all()


def test_poisson_loss_in_full_is_nearly_the_log_probability():
    """Stirling's formula leaves out 1 / (12 y)."""
    counts = np.array([[2.0, 5.0, 20.0]])
    ((C, *_),) = outcomes([("poisson_loss", np.log(counts + 1), counts, {"full": True})])
    exact = sum(x - n * np.log(x) + math.lgamma(n + 1) for n, x in zip(counts[0], counts[0] + 1, strict=True))
    np.testing.assert_allclose(C, [exact - (1 / (12 * counts)).sum()], atol=1e-3)


def test_gaussian_nll_at_its_bound_and_of_large_errors():
    """A variance below ε counts as ε and has no slope; at its best, v = e², it has none either; the square of e = 1e25
    overflows in float32, over a variance of 1e30 it does not."""
    a, v, y = np.array([[1.0, 3.0, 2.0]]), np.array([[0.01, 4.0, 0.5]]), np.array([[0.0, 1.0, 2.0]])
    large = [np.array([[x]], np.float32) for x in (1e25, 1e30, 0.0)]
    (C, dA, dV, dY), (far, *cotangents) = outcomes(
        [("gaussian_nll", a, v, y, {"epsilon": 0.5}), ("gaussian_nll", *large)]
    )
    np.testing.assert_allclose(C, [(2 * np.log(0.5) + 2 + np.log(4) + 1) / 2], rtol=1e-14)
    np.testing.assert_allclose(dA, [[2.0, 0.5, 0.0]])
    np.testing.assert_allclose(dV, [[0.0, 0.0, 1.0]], atol=1e-16)
    np.testing.assert_array_equal(dY, -dA)
    np.testing.assert_allclose(far, [5e19], rtol=1e-5)
    assert all(np.isfinite(d).all() for d in cotangents)


def test_bad_input():
    short = "the target Y must have shape (4, 5) like the {}, got float64 (4, 1)"
    refuses(rules.kl_divergence, short.format("log-probabilities L"), A, Y[:, :1])
    refuses(rules.kl_divergence, "the target Y must be of real numbers or integers, got bool (4, 5)", A, A > 0)
    refuses(rules.poisson_loss, short.format("prediction A"), A, Y[:, :1])
    refuses(rules.poisson_loss, "epsilon must be a positive number, got 0", A, Y, epsilon=0)
    refuses(
        rules.gaussian_nll, "the variance V must have shape (4, 5) like the mean A, got float64 (4, 1)", A, Y[:, :1], Y
    )
    refuses(rules.gaussian_nll, "epsilon must be a positive number, got 0", A, A, Y, epsilon=0)
