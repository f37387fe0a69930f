"""softmax_cross_entropy: tokens to ignore, class weights, z-loss, softcap, its edges, and every digit over the whole
range of float32 and bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import optimized_jit
from precision import against, autodiff, by_torch, cotangents, grid, over_the_whole_range
from rules.losses.rows import assert_edges, both, outcomes, subject
from rules.refusals import refuses

from handgrad import rules

OP = "softmax_cross_entropy"
RNG = np.random.default_rng(0)
Z = RNG.standard_normal((4, 3, 5)) * 2
LABELS = np.array([[0, 4, 1], [2, 2, 3], [1, 4, 1], [3, 0, 0]])
CLASS_WEIGHTS = RNG.uniform(0.2, 2, 5)
DC = np.array([1.0, -2.0, 0.5, 0.25])
EVERYTHING = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0}


def others_of(E):
    """Σ_{j ≠ k} e_j of each row."""
    return E @ (1 - np.eye(3))


def softmax_truth(Z, V, d, z_loss=0.0):
    """Of a target as numbers, from sums over the others: C, dZ, dV."""
    D = Z - Z.max(1, keepdims=True)
    E = np.exp(D)
    P, N = E / E.sum(1, keepdims=True), others_of(E) / E.sum(1, keepdims=True)
    rest = np.take_along_axis(others_of(E), np.argmax(E, 1)[:, None], 1)
    L = D - np.log1p(rest)
    lse = Z.max(1, keepdims=True) + np.log1p(rest)
    dZ = P * (others_of(V) + 2 * z_loss * lse) - V * N
    return (-np.where(V == 0, 0, V * L)).sum(1) + z_loss * lse[:, 0] ** 2, d[:, None] * dZ, -d[:, None] * L


def softmax_subject(name, inputs, target, wide=1, outputs=("C", "dZ"), weights=None, rivals=(), **options):
    """`wide`: how many times Σ |z_j ∂f/∂z_j| <= |z| p (1 − p), what last digits of the logits are to e^(s − m)."""

    def run(Z, Y, d):
        w = [] if weights is None else [jnp.asarray(weights, Z.dtype)]
        labels = Y.astype(int) if Y.ndim == 1 else Y
        return both(OP, Z, labels, *w, dC=d, **options)[: len(outputs)]

    def truth(Z, Y, d):
        return softmax_truth(Z, target(as_numbers(Y)), d, options.get("z_loss", 0.0))[: len(outputs)]

    def moved_loss(Z, Y, d):
        V = target(as_numbers(Y)) if Y.ndim == 1 else Y
        return np.abs(Z * softmax_truth(Z, V, np.ones_like(d))[1]).sum(1)

    def moved_logits(Z, Y, d):
        E = np.exp(Z - Z.max(1, keepdims=True))
        return wide * np.abs(d[:, None]) * np.abs(Z).max(1, keepdims=True) * E * others_of(E)

    moved = {"C": moved_loss, "dZ": moved_logits}
    return subject(OP, truth, inputs, name=name, outputs=" ".join(outputs), run=run, rivals=dict(rivals), moved=moved)


def as_numbers(Y):
    return np.eye(3)[Y.astype(int)] if Y.ndim == 1 else Y


def three_logits(z):
    return np.stack([z, np.zeros_like(z), np.full_like(z, 1)], axis=1)


def rows_with_labels(dtype):
    """Three logits, one of them from the grid, with each of the labels, as numbers: (batch, 3), (batch,)."""
    z, y = against(grid(dtype), [0, 1, 2], dtype=dtype)
    return three_logits(z), y, cotangents(z.shape, dtype)


DISTRIBUTIONS = np.array([[1.0, 0, 0], [0, 0, 1], [0.25, 0.25, 0.5], [1, 2**-12, 2**-20], [2**-20, 2**-12, 1]])


def rows_with_distributions(dtype):
    z, k = against(grid(dtype), np.arange(len(DISTRIBUTIONS)), dtype=np.float64)
    return three_logits(z).astype(dtype), DISTRIBUTIONS[k.astype(int)].astype(dtype), cotangents(z.shape, dtype)


def optax_labels(Z, y, d):
    return autodiff(lambda Z: optax.losses.softmax_cross_entropy_with_integer_labels(Z, y.astype(int)))(Z, d)


of_optax = autodiff(lambda Z, Y: optax.losses.softmax_cross_entropy(Z, Y))
of_distributions = {"optax": of_optax, **by_torch("cross_entropy", reduction="none")}
w = np.array([0.5, 1.0, 2.0])
weighted = lambda V: (0.75 * V + 0.25 / 3) * w  # noqa: E731
SUBJECTS = [
    softmax_subject("", rows_with_distributions, lambda V: V, outputs=("C", "dZ", "dY"), rivals=of_distributions),
    softmax_subject("smoothed", rows_with_distributions, lambda V: 0.9 * V + 0.1 / 3, label_smoothing=0.1),
    softmax_subject("z_loss", rows_with_distributions, lambda V: V, z_loss=0.125),
    softmax_subject("labels", rows_with_labels, lambda V: V, wide=2, rivals={"optax": optax_labels}),
    softmax_subject("labels-smoothed", rows_with_labels, lambda V: 0.9 * V + 0.1 / 3, wide=2, label_smoothing=0.1),
    softmax_subject("labels-weighted", rows_with_labels, weighted, wide=2, weights=w, label_smoothing=0.25),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


def test_edges():
    """A class ruled out by prediction and target, a class of weight 0, a weight of 0, logits far from 1."""
    ruled_out = [[1.0, -np.inf, 0.5]]
    assert_edges(
        zero_times_infinity=[
            (OP, ruled_out, [[0.25, 0.0, 0.75]]),
            (OP, ruled_out, [2]),
            (OP, ruled_out, [[0.25, 0.5, 0.25]], [1.0, 0.0, 2.0]),
            (OP, [[1.0, np.inf, 0.5]], [[0.0, 1.0, 0.0]]),
        ],
        weightless=[
            (OP, [[np.nan, 0.0]], [[1.0, 0.0]]),
            (OP, [[-np.inf, 0.0]], [[1.0, 0.0]]),
            (OP, [[-np.inf, -np.inf]], [[1.0, 0.0]], {"z_loss": 0.1, "softcap": 3.0}),
        ],
        far=[(OP, [[1.0, -1.0, 0.5]], [[0.0, 0.5, 0.5]])],
    )


def test_a_weight_of_zero_beside_class_weights():
    """A label that names no class makes its row's cotangents NaN, unless it counts 0."""
    row = (OP, np.zeros((2, 3)), np.array([0, 7]), np.ones(3))
    ((_, dZ, _, dw),) = outcomes([row], np.array([1.0, 0.0]))
    assert all(np.isfinite(a).all() for a in (dZ, dw))
    assert (dZ[1] == 0).all()
    assert np.isnan(outcomes([row])[0][1][1]).all()


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_an_ignored_token_costs_nothing(options):
    """Whatever its logits are; the rest is what it is without that token."""
    rows, rest = [], (OP, Z[:, ::2], LABELS[:, ::2], CLASS_WEIGHTS, options)
    for ignore in (-100, 4):
        labels = LABELS.copy()
        labels[:, 1] = ignore
        for fill in (1.0, np.nan, np.inf):
            logits = np.where(np.arange(3)[:, None] == 1, fill * Z, Z)
            rows.append((OP, logits, labels, CLASS_WEIGHTS, {"ignore_index": ignore, **options}))
    (expected_C, expected, _, expected_dw), *found = outcomes([rest, *rows], DC, jax.jit)
    for C, dZ, _, dw in found:
        np.testing.assert_allclose(C, expected_C, rtol=1e-14)
        np.testing.assert_allclose(dZ[:, ::2], expected, rtol=1e-14)
        np.testing.assert_allclose(dw, expected_dw, rtol=1e-13)
        assert (dZ[:, 1] == 0).all()


def test_labels_to_ignore():
    """An index that the labels' dtype cannot name must not wrap round into one; only the one index is excused."""
    rows = [
        (OP, Z, LABELS.astype(dtype), {"ignore_index": ignore})
        for dtype in ("uint8", "int8", "int64", "uint16")
        for ignore in (-100, 300)
        if (dtype, ignore) != ("int8", -100)
    ]
    labels = LABELS.copy()
    labels[0, 0], labels[1, 0] = -100, -99
    excused = (OP, Z, labels, {"ignore_index": -100})
    (plain, *_), (C, *_), *found = outcomes([(OP, Z, LABELS), excused, *rows], DC, jax.jit)
    assert np.isnan(C).tolist() == [False, True, False, False]
    for C, *_ in found:
        np.testing.assert_array_equal(C, plain)


def test_options_that_change_nothing():
    """Operation by operation: programs that differ may round in different ways."""
    plain, capped = both(OP, Z, LABELS, dC=DC), both(OP, Z, LABELS, dC=DC, softcap=1e9)
    for more, options in ([np.ones(5)], {}), ([], {"ignore_index": -1}), ([], {"z_loss": 0}):
        for one, other in zip(both(OP, Z, LABELS, *more, dC=DC, **options)[:2], plain, strict=False):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(capped[0], plain[0], rtol=1e-12)
    np.testing.assert_allclose(capped[1], plain[1], rtol=1e-12, atol=1e-14)


def test_the_z_loss_is_an_added_loss():
    @optimized_jit
    def run(Z):
        lse, residuals = rules.logsumexp_forward(Z)
        (of_lse,) = rules.logsumexp_backward(residuals, 0.6 * lse * DC[:, None])
        C, dZ, *_ = both(OP, Z, LABELS, dC=DC)
        return both(OP, Z, LABELS, dC=DC, z_loss=0.3)[:2], (C + 0.3 * (lse**2).sum(1), dZ + of_lse)

    found, expected = run(Z)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-12, atol=1e-14)


def test_far_beyond_the_cap():
    """Where tanh rounds to 1, 1 − tanh² of 20 and of 40 keeps its digits; at ±1e4 it is 0, the loss that of ±κ."""
    Z = np.array([[600.0, -600.0, 0.0], [1200.0, 0.0, 3.0], [1e4, -1e4, -1e4]], np.float32)
    ((C, dZ, *_),) = outcomes([(OP, Z, np.array([1, 1, 1]), {"softcap": 30.0})])
    z = Z[:2].astype(np.float64)
    S = 30 * np.tanh(z / 30)
    P = np.exp(S) / np.exp(S).sum(1, keepdims=True)
    np.testing.assert_allclose(dZ[:2], (P - np.eye(3)[1]) / np.cosh(z / 30) ** 2, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(C[2], 60.0, rtol=1e-6)
    np.testing.assert_allclose(dZ[2], np.zeros(3), atol=1e-6)


def test_a_class_that_is_ruled_out():
    """Logit −∞: it costs nothing where it never happens, class weights or not."""
    z = np.where(np.arange(5) == 4, -np.inf, Z)
    rows = [(OP, z, LABELS % 4, CLASS_WEIGHTS), (OP, Z[..., :4], LABELS % 4, CLASS_WEIGHTS[:4])]
    (C, dZ, _, dw), (expected, expected_dZ, _, expected_dw) = outcomes(rows, DC, jax.jit)
    np.testing.assert_allclose(C, expected, rtol=1e-13)
    np.testing.assert_allclose(dZ[..., :4], expected_dZ, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dw, [*expected_dw, 0], rtol=1e-12)
    assert (dZ[..., 4] == 0).all()


def test_bad_input():
    refuse = functools.partial(refuses, rules.softmax_cross_entropy)
    refuse("class_weights must have shape (5,) …, got float64 (4,)", Z, LABELS, CLASS_WEIGHTS[1:])
    refuse("class_weights must be an array, got list", Z, LABELS, [1.0] * 5)
    refuse("class_weights must have a floating-point dtype, got int64 (5,)", Z, LABELS, np.ones(5, int))
    refuse("the target Y must be labels where …, got float64 (4, 3, 5)", Z, Z, ignore_index=0)
    for index in (0.5, True, 2**31):
        refuse(f"ignore_index must be an integer of 32 bits or None, got {index}", Z, LABELS, ignore_index=index)
    refuse("z_loss must be a positive number, got -0.1", Z, LABELS, z_loss=-0.1)
    for cap in (-1.0, float("inf")):
        refuse(f"softcap must be a positive number, got {cap}", Z, LABELS, softcap=cap)
