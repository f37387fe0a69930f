"""Losses over the whole range of float32 and bfloat16: every digit that the inputs determine.

The truth is NumPy in float64, in forms that don't cancel there either; docs/precision.md has the exceptions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from precision import Subject, against, assert_precise, autodiff, by_torch, cotangents, grid, ulps

from handgrad import rules

DTYPES = [np.float32, jnp.bfloat16]
CHANCES = [0.0, 1.0, 0.5, 0.25, 1 - 2**-7, 2**-20]


def sigmoid(z):
    with np.errstate(all="ignore"):
        e = np.exp(-np.abs(z))
        return np.where(z >= 0, 1, e) / (1 + e)


def softplus(z):
    with np.errstate(all="ignore"):
        return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def above(z, y):
    """σ(z) − y."""
    return np.where(np.abs(z) < 1, np.tanh(z / 2) / 2 + (0.5 - y), (1 - y) * sigmoid(z) - y * sigmoid(-z))


def pairs(targets, dtype, numbers=grid):
    """Each number of the grid beside each target, and a cotangent: (batch,) each."""
    A, Y = against(numbers(dtype), targets, dtype=dtype)
    return A, Y, cotangents(A.shape, dtype)


def silent(truth):
    """Infinities are part of the truth."""

    @functools.wraps(truth)
    def run(*arguments):
        with np.errstate(all="ignore"):
            return truth(*arguments)

    return run


@silent
def sigmoid_cross_entropy(z, y, d):
    return y * softplus(-z) + (1 - y) * softplus(z), d * above(z, y), -d * z


def optax_sigmoid(z, y):
    return optax.losses.sigmoid_binary_cross_entropy(z, y)


def of_torch(name, **options):
    return by_torch(lambda torch, a, y: getattr(torch.nn.functional, name)(a, y, reduction="none", **options))


SIGMOID = Subject(
    "sigmoid_cross_entropy",
    "",
    ("C", "dZ", "dY"),
    functools.partial(pairs, CHANCES),
    sigmoid_cross_entropy,
    rivals={"optax": autodiff(optax_sigmoid), **of_torch("binary_cross_entropy_with_logits")},
    moved={"dZ": lambda z, y, d: np.abs(d * z) * sigmoid(z) * sigmoid(-z)},  # σ(z) − y, at a target between 0 and 1
)


def focal(gamma):
    @silent
    def truth(z, y, d):
        p, n = sigmoid(z), sigmoid(-z)
        doubt, c = y * n + (1 - y) * p, y * softplus(-z) + (1 - y) * softplus(z)
        ratio = 1 / (
            np.where(y == 0, 0, y / np.where(y == 0, 1, p)) + np.where(y == 1, 0, (1 - y) / np.where(y == 1, 1, n))
        )
        slope = doubt**gamma * (above(z, y) + gamma * (1 - 2 * y) * ratio * c)
        less = np.where(doubt == 0, 0, doubt ** (gamma - 1))
        return doubt**gamma * c, d * slope, d * (-gamma * np.tanh(z / 2) * less * c - doubt**gamma * z)

    return truth


def plain_focal(gamma):
    def loss(z, y):
        p = jax.nn.sigmoid(z)
        c = optax.losses.sigmoid_binary_cross_entropy(z, y)
        return (1 - (p * y + (1 - p) * (1 - y))) ** gamma * c

    return autodiff(loss)


FOCAL = [
    Subject(
        "focal_loss",
        f"{gamma:g}",
        ("C", "dZ", "dY"),
        functools.partial(pairs, CHANCES),
        focal(gamma),
        rivals={"optax": plain_focal(gamma)},
        options={"gamma": gamma},
        moved=SIGMOID.moved,
    )
    for gamma in (0.5, 2.0)
]


def inside(dtype):
    """The grid between 0 and 1; what 0 and 1 themselves count as is a convention, tested beside the rule."""
    numbers = grid(dtype)
    return numbers[(numbers > 0) & (numbers < 1)]


@silent
def binary_cross_entropy(a, y, d):
    odds = np.where(np.abs(a - 0.5) < 0.25, -2 * np.arctanh(2 * a - 1), np.log1p(-a) - np.log(a))
    return -(y * np.log(a) + (1 - y) * np.log1p(-a)), d * (a - y) / a / (1 - a), d * odds


BINARY = Subject(
    "binary_cross_entropy",
    "",
    ("C", "dA", "dY"),
    functools.partial(pairs, CHANCES, numbers=inside),
    binary_cross_entropy,
    rivals=of_torch("binary_cross_entropy"),
    bars={"dA": 4, "dY": 4},
)


def of_error(op, value, slope, targets=(0.0, 1.0, -3.0, 1e30, -1e-30), **options):
    """A loss of a − y: value and slope of the error."""
    return Subject(
        op,
        "",
        ("C", "dA", "dY"),
        functools.partial(pairs, targets),
        silent(lambda a, y, d: (value(a - y), d * slope(a - y), -d * slope(a - y))),
        options=options,
        bars={"C": 3, "dA": 2, "dY": 2},
        # half precision rounds to what no formula can hold apart: a − y itself is exact, so that nothing moves
    )


ERRORS = [
    of_error("squared_error", np.square, lambda e: 2 * e),
    of_error("l2_loss", lambda e: e * (e / 2), lambda e: e),
    of_error("absolute_error", np.abs, np.sign),
    of_error(
        "huber_loss",
        lambda e: np.where(np.abs(e) < 0.75, e * (e / 2), 0.75 * (np.abs(e) - 0.375)),
        lambda e: np.clip(e, -0.75, 0.75),
        delta=0.75,
    ),
]


@silent
def hinge_loss(a, y, d):
    inside = (1 + np.sign(1 - y * a)) / 2
    return np.maximum(0, 1 - y * a), -d * y * inside, -d * a * inside


HINGE = Subject(
    "hinge_loss",
    "",
    ("C", "dA", "dY"),
    functools.partial(pairs, [-1.0, 1.0]),
    hinge_loss,
    bars={"C": 2, "dA": 2, "dY": 2},
)


def beside(a, y):
    """e^a − y."""
    return np.where(np.abs(a) < 0.5, np.expm1(a) + (1 - y), np.exp(a) - y)


def poisson(full):
    @silent
    def truth(a, y, d):
        n = np.where(full & (y > 1), y, 1)
        stirling = np.where(full & (y > 1), n * np.log(n) - n + np.log(2 * np.pi * n) / 2, 0)
        slope = np.where(full & (y > 1), np.log(n) + 0.5 / n, 0) - a
        return np.exp(a) - y * a + stirling, d * beside(a, y), d * slope

    return truth


@silent
def poisson_of_rates(a, y, d):
    return a - y * np.log(a + 1e-8), d * (a - y + 1e-8) / (a + 1e-8), -d * np.log(a + 1e-8)


COUNTS = [0.0, 1.0, 2.0, 7.0, 1000.0]


def poisson_subject(full, **more):
    return Subject(
        "poisson_loss",
        "full" if full else "",
        ("C", "dA", "dY"),
        functools.partial(pairs, COUNTS),
        poisson(full),
        options={"full": full},
        moved={  # e^a, y a and y log y meet
            "C": silent(lambda a, y, d: np.abs(a) * np.maximum(y, np.exp(a)) + full * y * np.log(np.maximum(y, 1))),
            "dA": silent(lambda a, y, d: np.abs(d * a) * np.exp(a)),
            **({"dY": lambda a, y, d: np.abs(d * a)} if full else {}),
        },
        **more,
    )


POISSON = [
    poisson_subject(False, rivals={"jax": autodiff(lambda a, y: jnp.exp(a) - y * a)}),
    poisson_subject(True),
    Subject(
        "poisson_loss",
        "rates",
        ("C", "dA", "dY"),
        functools.partial(pairs, COUNTS, numbers=lambda dtype: grid(dtype)[grid(dtype) >= 0]),
        poisson_of_rates,
        options={"log_input": False},
        moved={
            "C": silent(lambda a, y, d: y * (1 + np.abs(np.log(a + 1e-8)))),
            "dA": silent(lambda a, y, d: np.abs(d) * np.where(y == 0, 0, 1e-8 / (a + 1e-8))),
            "dY": silent(lambda a, y, d: np.abs(d * a) / (a + 1e-8)),
        },
    ),
]


def below(dtype):
    """The grid's logarithms of probabilities."""
    return grid(dtype)[grid(dtype) <= 0]


@silent
def kl_divergence(ell, q, d):
    log_q = np.log(np.where(q == 0, 1, q))
    return q * (log_q - ell), -d * q, d * np.where(q == 0, -ell, log_q - ell + 1)


@silent
def kl_divergence_of_logarithms(ell, y, d):
    q = np.exp(y)
    return q * (y - ell), -d * q, d * q * (y - ell + 1)


KL = [
    Subject(
        "kl_divergence",
        "",
        ("C", "dL", "dY"),
        functools.partial(pairs, CHANCES, numbers=below),
        kl_divergence,
        rivals={"optax": autodiff(lambda ell, q: q * (jnp.log(q) - ell))},
        moved={"C": lambda ell, q, d: q * np.abs(ell), "dY": lambda ell, q, d: np.abs(d * ell)},
    ),
    Subject(
        "kl_divergence",
        "log",
        ("C", "dL", "dY"),
        functools.partial(pairs, [0.0, -0.5, -3.0, -20.0, -80.0], numbers=below),
        kl_divergence_of_logarithms,
        options={"log_target": True},
        moved={"dY": lambda ell, y, d: np.abs(d * ell) * np.exp(y)},  # log q − ℓ + 1
    ),
]


def rows(dtype):
    """Three logits, one of them from the grid, with each of the labels, as numbers: (batch, 3), (batch,)."""
    z, y = against(grid(dtype), [0, 1, 2], dtype=dtype)
    return np.stack([z, np.zeros_like(z), np.full_like(z, 1)], axis=1), y, cotangents(z.shape, dtype)


def softmax_truth(Z, V, d, z_loss=0.0):
    """Of a target as numbers, from sums over the others: C, dZ, dV."""
    D = Z - Z.max(1, keepdims=True)
    E = np.exp(D)
    others = E @ (1 - np.eye(3))  # Σ_{j ≠ k} e_j
    P, N = E / E.sum(1, keepdims=True), others / E.sum(1, keepdims=True)
    sure = np.argmax(E, 1)[:, None]
    rest = np.take_along_axis(others, sure, 1)
    L = D - np.log1p(rest)
    lse = Z.max(1, keepdims=True) + np.log1p(rest)
    dZ = P * (V @ (1 - np.eye(3)) + 2 * z_loss * lse) - V * N
    return (-np.where(V == 0, 0, V * L)).sum(1) + z_loss * lse[:, 0] ** 2, d[:, None] * dZ, -d[:, None] * L


def moved_logits(Z, V, d):
    """Σ |z_j ∂f/∂z_j| is no more than |z| p (1 − p): what last digits of the logits are to e^(s − m)."""
    E = np.exp(Z - Z.max(1, keepdims=True))
    return np.abs(d[:, None]) * np.abs(Z).max(1, keepdims=True) * E * (E @ (1 - np.eye(3)))


DISTRIBUTIONS = np.array([[1.0, 0, 0], [0, 0, 1], [0.25, 0.25, 0.5], [1, 2**-12, 2**-20], [2**-20, 2**-12, 1]])


def rows_with_distributions(dtype):
    z, k = against(grid(dtype), np.arange(len(DISTRIBUTIONS)), dtype=np.float64)
    Z = np.stack([z, np.zeros_like(z), np.full_like(z, 1)], axis=1).astype(dtype)
    return Z, DISTRIBUTIONS[k.astype(int)].astype(dtype), cotangents(z.shape, dtype)


def softmax_subject(name, target=lambda V: V, z_loss=0.0, rivals=(), **options):
    options = {**options, **({"z_loss": z_loss} if z_loss else {})}
    outputs = ("C", "dZ") if options else ("C", "dZ", "dY")

    def run(Z, Y, d):
        C, residuals = rules.softmax_cross_entropy_forward(Z, Y, **options)
        return (C, *rules.softmax_cross_entropy_backward(residuals, d, **options)[: len(outputs) - 1])

    return Subject(
        "softmax_cross_entropy",
        name,
        outputs,
        rows_with_distributions,
        silent(lambda Z, Y, d: softmax_truth(Z, target(Y), d, z_loss)[: len(outputs)]),
        run=run,
        rivals=dict(rivals),
        moved={
            "C": silent(lambda Z, Y, d: np.abs(Z * softmax_truth(Z, Y, np.ones_like(d))[1]).sum(1)),
            "dZ": silent(moved_logits),
        },
    )


def optax_softmax(Z, Y):
    return optax.losses.softmax_cross_entropy(Z, Y)


SOFTMAX = [
    softmax_subject(
        "",
        rivals={
            "optax": autodiff(optax_softmax),
            **by_torch(lambda torch, Z, Y: torch.nn.functional.cross_entropy(Z, Y, reduction="none")),
        },
    ),
    softmax_subject("smoothed", lambda Y: 0.9 * Y + 0.1 / 3, label_smoothing=0.1),
    softmax_subject("z_loss", z_loss=0.125),
]


def scaled(dtype):
    """Two vectors, one of any length: (batch, 3)."""
    s, t = against(grid(dtype), [1.0, 1e30, -1e-3], dtype=np.float64)
    inputs = s[:, None] * np.array([[1.0, 0.5, -2.0]]) / 4, t[:, None] * np.array([[0.5, 3.0, 1.0]])
    return (*(a.astype(dtype) for a in inputs), cotangents(s.shape, dtype))


def nearly_parallel(dtype):
    """(1, t, 0) beside (1, 0, 0) and (3, 0, 0)."""
    t, r = against(grid(dtype), [1.0, 3.0], dtype=dtype)
    none = np.zeros_like(t)
    return np.stack([none + 1, t, none], 1), np.stack([r, none, none], 1), cotangents(t.shape, dtype)


def cosine_distance(a, y, d):
    (u, long), (v, _) = ((x / np.maximum(r, 1e-8), r > 1e-8) for x, r in ((a, norm(a)), (y, norm(y))))
    cosine = (u * v).sum(1, keepdims=True)
    of_a = np.where(long, (v - cosine * u) / np.where(long, norm(a), 1), v / 1e-8)
    of_y = (u - cosine * v) / norm(y)
    return 1 - cosine[:, 0], -d[:, None] * of_a, -d[:, None] * of_y


def nearly_zero(a, y, d):
    """The same of (1, t, 0) and (r, 0, 0): cos = 1 / √(1 + t²)."""
    t, h = a[:, 1], np.hypot(1, a[:, 1])
    none = np.zeros_like(t)
    of_a = np.stack([(t / h) * (t / h) / h, -t / h / h / h, none], 1)
    of_y = np.stack([none, t / h, none], 1) / y[:, :1]
    return (t / h) * (t / (1 + h)), -d[:, None] * of_a, -d[:, None] * of_y


def norm(x):
    return np.linalg.norm(x, axis=1, keepdims=True)


def one_over(i, elements=(1, 1, 1)):
    """|d| over the length of an argument: what its direction, rounded, moves these elements of a cotangent by."""
    return lambda *inputs: np.abs(inputs[2][:, None]) / np.maximum(norm(inputs[i]), 1e-8) * np.array([elements])


COSINE = [
    Subject(
        "cosine_distance",
        "lengths",
        ("C", "dA", "dY"),
        scaled,
        silent(cosine_distance),
        bars={"C": 4},
        moved={"dA": one_over(0), "dY": one_over(1)},
    ),
    Subject(
        "cosine_distance",
        "parallel",
        ("C", "dA", "dY"),
        nearly_parallel,
        silent(nearly_zero),
        moved={
            "dA": lambda a, y, d: one_over(0)(a, y, d) * [[1, 0, 0]],
            "dY": lambda a, y, d: one_over(1)(a, y, d) * [[1, 0, 0]],
        },
    ),
]


WEIGHTS = np.array([0.5, 1.0, 2.0])


def labels_subject(name, target, rivals=(), weights=None, **options):
    """The same of labels, where the loss takes other sums."""

    def run(Z, y, d):
        w = [] if weights is None else [jnp.asarray(weights, Z.dtype)]
        C, residuals = rules.softmax_cross_entropy_forward(Z, y.astype(int), *w, **options)
        return C, rules.softmax_cross_entropy_backward(residuals, d, **options)[0]

    def one_hot(y):
        return target(np.eye(3)[y.astype(int)])

    return Subject(
        "softmax_cross_entropy",
        f"labels{name}",
        ("C", "dZ"),
        rows,
        silent(lambda Z, y, d: softmax_truth(Z, one_hot(y), d)[:2]),
        run=run,
        rivals=dict(rivals),
        moved={
            "C": silent(lambda Z, y, d: np.abs(Z * softmax_truth(Z, one_hot(y), np.ones_like(d))[1]).sum(1)),
            "dZ": silent(lambda Z, y, d: 2 * moved_logits(Z, one_hot(y), d)),
        },
    )


def optax_labels(Z, y, d):
    return autodiff(lambda Z: optax.losses.softmax_cross_entropy_with_integer_labels(Z, y.astype(int)))(Z, d)


LABELS = [
    labels_subject("", lambda V: V, rivals={"optax": optax_labels}),
    labels_subject("-smoothed", lambda V: 0.9 * V + 0.1 / 3, label_smoothing=0.1),
    labels_subject("-weighted", lambda V: (0.75 * V + 0.25 / 3) * WEIGHTS, weights=WEIGHTS, label_smoothing=0.25),
]


SUBJECTS = [SIGMOID, *FOCAL, BINARY, *ERRORS, HINGE, *POISSON, *KL, *SOFTMAX, *LABELS, *COSINE]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_over_the_whole_range(subject, dtype):
    assert_precise(subject, dtype)


def sure_rows(dtype):
    """Three logits, the first from the grid, and a U: (batch, 3) each."""
    z = grid(dtype)
    Z = np.stack([z, np.zeros_like(z), np.full_like(z, 1)], axis=1)
    return Z, np.broadcast_to(np.array([[1.0, 0.5, -2.0]]), Z.shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_roots_over_the_whole_range(dtype):
    """√p (u (1 − p) − …) where p rounds to 1, and √(σ(z) σ(−z)) where σ(−z) is no number any more."""
    Z, U = sure_rows(dtype)
    labels = np.zeros(len(Z), int)

    @jax.jit
    def roots(Z, U):
        of_softmax = rules.softmax_cross_entropy_forward(Z, labels)[1]
        of_sigmoid = rules.sigmoid_cross_entropy_forward(Z, jnp.zeros_like(Z))[1]
        return rules.softmax_cross_entropy_root(of_softmax, U), rules.sigmoid_cross_entropy_root(of_sigmoid, U)

    softmax, sigmoids = roots(jnp.asarray(Z), jnp.asarray(U))
    Z, U = Z.astype(np.float64), U.astype(np.float64)
    with np.errstate(all="ignore"):
        D = Z - Z.max(1, keepdims=True)
        E, rooted = np.exp(D), np.exp(D / 2)
        total = E.sum(1, keepdims=True)
        others = 1 - np.eye(3)
        along = rooted * U / np.sqrt(total)
        expected = along * (E @ others) / total - E / total * (along @ others)
        r = np.exp(-np.abs(Z) / 2)
        size = np.abs(Z).max(1, keepdims=True)
        moved = (1 + size) * (np.abs(along) * (E @ others) / total + E / total * (np.abs(along) @ others))
        assert (ulps(sigmoids, r / (1 + r * r) * U) <= 4).all()
        allowed = 8 * (1 + moved / np.maximum(np.abs(expected), np.finfo(np.float64).tiny))
        assert (ulps(softmax, expected) <= np.where(np.isnan(allowed), 8, allowed)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_draws_are_slopes_with_all_their_digits(dtype):
    """−(1 − p) at what was drawn, also where p rounds to 1."""
    z = jnp.broadcast_to(jnp.linspace(0, 60, 61).astype(dtype)[:, None], (61, 2)) * jnp.asarray([[1, 0]], dtype)
    of_softmax = rules.softmax_cross_entropy_forward(z, np.zeros(61, int))[1]
    of_sigmoid = rules.sigmoid_cross_entropy_forward(z, jnp.zeros_like(z))[1]
    tails = np.exp(-np.asarray(z[:, 0], np.float64)) / (1 + np.exp(-np.asarray(z[:, 0], np.float64)))
    for draw in (
        rules.softmax_cross_entropy_draw(of_softmax, jax.random.key(0)),
        rules.sigmoid_cross_entropy_draw(of_sigmoid, jax.random.key(0))[:, :1],
    ):
        drawn = np.asarray(draw[:, 0], np.float64)
        assert (drawn[20:] < 0).all()
        assert (ulps(draw[20:, 0], -tails[20:]) <= 4).all()


def test_a_cap_far_beyond():
    """1 − tanh² of 20 and of 40, where tanh rounds to 1."""
    Z = jnp.asarray([[600.0, -600.0, 0.0], [1200.0, 0.0, 3.0]], jnp.float32)
    C, residuals = rules.softmax_cross_entropy_forward(Z, np.array([1, 1]), softcap=30.0)
    dZ = np.asarray(rules.softmax_cross_entropy_backward(residuals, jnp.ones_like(C), softcap=30.0)[0], np.float64)
    z = np.asarray(Z, np.float64)
    S = 30 * np.tanh(z / 30)
    P = np.exp(S) / np.exp(S).sum(1, keepdims=True)
    expected = (P - np.eye(3)[[1, 1]]) / np.cosh(z / 30) ** 2
    np.testing.assert_allclose(dZ, expected, rtol=1e-5, atol=1e-37)


def test_info_nce_of_a_sure_query():
    """p − 1 of the query's own key, where p rounds to 1 in float32."""
    A, Y = jnp.eye(3, dtype=jnp.float32), jnp.asarray([[1, 0.1, 0], [0.2, 1, 0], [0, 0, 1]], jnp.float32)
    for temperature in (0.05, 0.02):
        C, residuals = rules.info_nce_forward(A, Y, temperature=temperature)
        found = C, *rules.info_nce_backward(residuals, jnp.ones_like(C), temperature=temperature)

        def plain(A, Y, temperature=temperature):
            U, V = (X / jnp.linalg.norm(X, axis=1, keepdims=True) for X in (A, Y))
            S = U @ V.T / temperature
            others = jnp.where(jnp.eye(3, dtype=bool), -jnp.inf, S - jnp.diagonal(S)[:, None])
            return jnp.log1p(jnp.exp(others).sum(1))

        exact = autodiff(plain)(A.astype(jnp.float64), Y.astype(jnp.float64), jnp.ones(3))
        for one, truth in zip(found, exact, strict=True):
            assert np.abs(np.asarray(one, np.float64) - np.asarray(truth)).max() <= 1e-4 * np.abs(truth).max()
