"""A wrong gradient's repair: the right line, and what it should do instead. Nothing is compiled here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import check_rule
from handgrad.crosscheck.errors.repair.repair import find
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.functions import from_custom_vjp


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def repairs(problem, elsewhere=False) -> Any:
    """(source, change) of each repair, with the other lines if asked for; None where nothing is wrong."""
    found = find(problem, problem.leaves, seed=0)
    if found is None:
        return None
    return [(one.source, one.change if elsewhere else one.change.split(" (or on ")[0]) for one in found.reports()]


def of_rule(forward, backward, *args, elsewhere=False) -> Any:
    return repairs(from_rule("rule", forward, backward, args, None), elsewhere)


def softmax(X):
    P = jax.nn.softmax(X)
    return P, P


def softmax_of_mean(P, dP):
    s = jnp.mean(P * dP, -1, keepdims=True)
    return (P * (dP - s),)


def softmax_right(P, dP):
    s = jnp.sum(P * dP, -1, keepdims=True)
    return (P * (dP - s),)


def softmax_added(P, dP):
    s = jnp.sum(P * dP, -1, keepdims=True)
    return (P * (dP + s),)


def softmax_along_examples(P, dP):
    s = jnp.sum(P * dP, 0, keepdims=True)
    return (P * (dP - s),)


def linear(X, W, b):
    return X @ W + b[None], (X, W)


def linear_untransposed(residuals, dY):
    X, W = residuals
    return dY @ W, X.T @ dY, dY.sum(0)


def linear_unsummed(residuals, dY):
    X, W = residuals
    return dY @ W.T, X.T @ dY, dY


def linear_mean(residuals, dY):
    X, W = residuals
    dW = X.T @ dY / len(dY)
    return dY @ W.T, dW, dY.sum(0)


def tanh(X):
    Y = jnp.tanh(X)
    return Y, Y


def tanh_unsquared(Y, dY):
    return (dY * (1 - Y),)


def tanh_forgotten(Y, dY):
    return (dY,)


def squares(X, T):
    return jnp.mean((X - T) ** 2), (X, T)


def squares_halved(residuals, dY):
    X, T = residuals
    dX = dY * (X - T) / X.size
    return dX, -dX


def relu(X):
    return jnp.maximum(X, 0), X


def relu_exchanged(X, dY):
    return (jnp.where(X > 0, 0.0, dY),)


def product(A, B):
    return A * B, (A, B)


def product_swapped(residuals, dY):
    A, B = residuals
    return dY * A, dY * B


def power(x, a):
    return x**a, (x, a)


def power_without_a(residuals, dY):
    x, a = residuals
    return dY * x ** (a - 1), jnp.sum(dY * x**a * jnp.log(x))


def total(X):
    return jnp.cumsum(X, 0), None


def total_forwards(residuals, dY):
    return (jnp.cumsum(dY, 0),)


def modulus(Z):
    return jnp.real(Z * jnp.conj(Z)), Z


def modulus_conjugate(Z, dY):
    return (2 * dY * Z,)


def rounded(X):
    return jnp.sin(X), X


def rounded_cosine(X, dY):
    c = jnp.cos(X).astype(jnp.float16)
    return (dY * c,)


def sine_wrong(X, dY):
    return (dY * jnp.sin(X),)


def layer_norm(X):
    r = 1 / jnp.sqrt(X.var(-1, keepdims=True) + 1e-5)
    N = (X - X.mean(-1, keepdims=True)) * r
    return N, (N, r)


def layer_norm_uncentered(residuals, dN):
    N, r = residuals
    return (r * (dN - N * (dN * N).mean(-1, keepdims=True)),)


def rnn(X, U):
    def step(h, x):
        h = jnp.tanh(x + h @ U)
        return h, h

    H = jax.lax.scan(step, jnp.zeros_like(X[0]), X)[1]
    return H, (U, H)


def rnn_unsquared(residuals, dH):
    U, H = residuals

    def step(dh, inputs):
        d, h = inputs
        dz = (d + dh) * (1 - h)
        return dz @ U.T, dz

    dZ = jax.lax.scan(step, jnp.zeros_like(H[0]), (dH, H), reverse=True)[1]
    before = jnp.concatenate([jnp.zeros_like(H[:1]), H[:-1]])
    return dZ, jnp.einsum("tbi,tbo->io", before, dZ)


X, W, b = normal((5, 4), (4, 4), (4,))
CASES = [
    (softmax, softmax_of_mean, (X,), "s = jnp.mean(P * dP, -1, keepdims=True)", "a sum instead of the mean"),
    (softmax, softmax_added, (X,), "return (P * (dP + s),)", "the sign of s flipped"),
    (
        softmax,
        softmax_along_examples,
        (W,),
        "s = jnp.sum(P * dP, 0, keepdims=True)",
        "the sum over axis 1 instead of axis 0",
    ),
    (linear, linear_untransposed, (X, W, b), "return dY @ W, X.T @ dY, dY.sum(0)", "W transposed, in dX"),
    (linear, linear_unsummed, (X, W, b), "return dY @ W.T, X.T @ dY, dY", "dY summed over axis 0, in db"),
    (linear, linear_mean, (X, W, b), "dW = X.T @ dY / len(dY)", "the division by `len(dY)` left out"),
    (tanh, tanh_unsquared, (X,), "return (dY * (1 - Y),)", "Y² in place of Y"),
    (tanh, tanh_forgotten, (X,), "return (dY,)", "dY times 1 − Y²"),
    (squares, squares_halved, (X, 2 * X), "dX = dY * (X - T) / X.size", "a factor of 2"),
    (relu, relu_exchanged, (X,), "return (jnp.where(X > 0, 0.0, dY),)", "the cases exchanged"),
    (total, total_forwards, (X,), "return (jnp.cumsum(dY, 0),)", "the sum taken from the end"),
    (modulus, modulus_conjugate, (X + 1j * X[::-1],), "return (2 * dY * Z,)", "the conjugate of Z"),
    (rounded, rounded_cosine, (X,), "c = jnp.cos(X).astype(jnp.float16)", "the cast left out"),
    (rounded, sine_wrong, (X,), "return (dY * jnp.sin(X),)", "cos instead of sin"),
    (rnn, rnn_unsquared, (X.reshape(2, 5, 2), W[:2, :2]), "dz = (d + dh) * (1 - h)", "h² in place of h"),
]


@pytest.mark.parametrize(
    ("forward", "backward", "args", "source", "change"), CASES, ids=lambda x: getattr(x, "__name__", "")
)
def test_repair(forward, backward, args, source, change):
    assert of_rule(forward, backward, *args) == [(source, change)]


def test_two_leaves():
    (found,) = of_rule(product, product_swapped, *normal((3, 4), (3, 4)))
    assert found == ("return dY * A, dY * B", "`dY * A` and `dY * B` exchanged")

    def backward(residuals, dY):
        A, _ = residuals
        return dY * A, dY * A * A

    assert of_rule(product, backward, *normal((3, 4), (3, 4))) == [
        ("return dY * A, dY * A * A", "B in place of A, in dA"),
        ("return dY * A, dY * A * A", "dY in place of `dY * A`, in dB"),
    ]


def test_a_missing_term():
    ((source, change),) = of_rule(layer_norm, layer_norm_uncentered, X)
    assert source == "return (r * (dN - N * (dN * N).mean(-1, keepdims=True)),)"
    assert change.startswith("the mean of dN along axis 1 added to")


def test_a_scalar_argument():
    ((source, change),) = of_rule(power, power_without_a, np.abs(X), np.float64(2.5))
    assert source == "return dY * x ** (a - 1), jnp.sum(dY * x**a * jnp.log(x))"
    assert change in ("`x ** (a - 1)` times a, in dx", "`dY * x ** (a - 1)` times a, in dx", "dY times a, in dx")


def test_a_line_that_runs_several_times():
    """A Python loop, or a helper that is called twice: the line is changed each time."""

    def forward(A, B):
        return jnp.sin(A) + jnp.sin(B), (A, B)

    def slope(X):
        return -jnp.cos(X)

    def backward(residuals, dY):
        A, B = residuals
        return dY * slope(A), dY * slope(B)

    # Of several leaves each has its repair, and the second is the first's.
    found = of_rule(forward, backward, *normal((3, 4), (3, 4)))
    assert {source for source, _ in found} <= {"return -jnp.cos(X)", "return dY * slope(A), dY * slope(B)"}

    def powers(X):
        return X + X**2 + X**3, X

    def unscaled(X, dY):
        dX = 0
        for k in range(3):
            dX = dX - dY * (k + 1) * X**k
        return (dX,)

    ((source, change),) = of_rule(powers, unscaled, X)
    assert (source, change) == ("dX = dX - dY * (k + 1) * X**k", "the sign of `dY * (k + 1) * X ** k` flipped")


def test_a_factor_that_stretches():
    def forward(X):
        n = jnp.sqrt(jnp.sum(X**2, axis=1, keepdims=True))
        return X / n, (X, n)

    def backward(residuals, dY):
        X, n = residuals
        dot = jnp.sum(dY * X, axis=1, keepdims=True)
        return (dY / n - dot / n**3,)

    assert of_rule(forward, backward, X) == [("return (dY / n - dot / n**3,)", "`dot / n**3` times X")]


def test_two_changes():
    """What no single change repairs, two do."""

    def forward(X):
        Y = jnp.tanh(X)
        return Y + jnp.sin(X), (Y, X)

    def twice(residuals, dY):
        Y, X = residuals
        a = dY * (1 - Y)
        b = dY * jnp.sin(X)
        return (a + b,)

    found = of_rule(forward, twice, X)
    lines = ("a = dY * (1 - Y)", "Y² in place of Y"), ("b = dY * jnp.sin(X)", "cos instead of sin")
    assert sorted(found) == sorted(lines)


def test_an_error_of_roundings_size_has_none():
    assert of_rule(softmax, lambda P, dP: (softmax_right(P, dP)[0] * (1 + 1e-8),), X) is None


def test_where_else():
    """Nothing tells a value's line from the line that reads it: both are named."""

    def backward(Y, dY):
        slope = 1 - Y**2
        dX = dY * slope
        return (dX * jnp.exp(Y),)

    def forward(X):
        Y = jnp.tanh(X)
        return jnp.exp(Y) / 2, Y

    ((source, change),) = of_rule(forward, backward, X, elsewhere=True)
    assert source == "return (dX * jnp.exp(Y),)"
    line = backward.__code__.co_firstlineno
    assert change == f"`dX * jnp.exp(Y)` × 1/2 (or on lines {line + 2}, {line + 1})"

    def unsloped(Y, dY):
        dX = dY
        return (dX * jnp.exp(Y) / 2,)

    ((source, change),) = of_rule(forward, unsloped, X)
    assert (source, change) == ("dX = dY", "a factor of 1 − Y²")  # a line that only gives a name is suspicious


def test_a_factor_that_a_helper_lacks():
    """A helper that is called twice: its line is changed for both."""

    def forward(A, B):
        return jnp.tanh(A) * jnp.tanh(B), (A, B)

    def squared(Y):
        return (2 - 2 * Y**2) / 2 * 2

    def backward(residuals, dY):
        A, B = residuals
        return dY * squared(jnp.tanh(A)) * jnp.tanh(B), dY * squared(jnp.tanh(B)) * jnp.tanh(A)

    ((source, change),) = of_rule(forward, backward, *normal((3, 4), (3, 4)))
    assert (source, change) == ("return (2 - 2 * Y**2) / 2 * 2", "the factor `2` left out")


def lse(X):
    Y = jax.nn.logsumexp(X, axis=1)
    return Y, (X, Y)


def lse_without_g(residuals, g):
    X, Y = residuals
    return (jnp.exp(X - Y[:, None]),)


def softmax_without_difference(s, g):
    inner = jnp.sum(g * s, axis=1, keepdims=True)  # noqa: F841 (its use is what is missing)
    return (s,)


@pytest.mark.parametrize(
    ("forward", "backward", "change"),
    [
        (lse, lse_without_g, "`jnp.exp(X - Y[:, None])` times dY[:, None]"),
        (softmax, softmax_without_difference, "s times (g − inner)"),
    ],
)
def test_a_cotangent_that_is_not_read(forward, backward, change):
    assert [found for _, found in of_rule(forward, backward, X)] == [change]


def test_a_factor_that_makes_it_as_large_as_the_leaf():
    def backward(residuals, dY):
        x, W, y = residuals
        return dY[:, None] * (y @ W.T), x.T @ dY[:, None], dY[:, None] * (x @ W)

    def forward(x, W, y):
        return jnp.sum(x @ W * y, axis=1), (x, W, y)

    found = of_rule(forward, backward, *normal((5, 3), (3, 4), (5, 4)))
    assert [change for _, change in found] == ["`dY[:, None]` times y, in dW"]


def test_a_right_gradient_has_none():
    assert of_rule(softmax, softmax_right, X) is None


def test_coincidences():
    """The batch is as large as another axis: of the two that a factor might be, other shapes show which it is."""

    def backward(residuals, dY):
        X, W = residuals
        return dY @ W.T / 4, X.T @ dY, dY.sum(0)

    ((_, change),) = of_rule(linear, backward, *normal((4, 4), (4, 4), (4,)))
    assert change == "the division by `4` left out, in dX"

    def by_length(residuals, dY):
        X, W = residuals
        return dY @ W.T, X.T @ dY / X.shape[1], dY.sum(0)

    def forward(X, W, b):
        return X @ W / X.shape[1] + b[None], (X, W)

    found = of_rule(forward, by_length, *normal((4, 4), (4, 4), (4,)))
    assert found == [
        ("return dY @ W.T, X.T @ dY / X.shape[1], dY.sum(0)", "`dY @ W.T` divided by the length of axis 1 of X, in dX")
    ]


def test_no_repair_is_known():
    """Of a gradient that is another function, and of one that is right at the inputs given alone."""

    def backward(Y, dY):
        return (jnp.sin(3 * dY) * jnp.exp(-3 * Y),)

    assert of_rule(tanh, backward, X) == []


def test_lines_of_a_custom_vjp():
    f = jax.custom_vjp(lambda X: jax.nn.softmax(X))
    f.defvjp(softmax, softmax_of_mean)
    assert repairs(from_custom_vjp("f", f, None, (X,), {})) == [CASES[0][3:]]


def test_in_a_report():
    report = check_rule(softmax, softmax_of_mean, X, contracts=False, transforms=())
    (repair,) = report.repair
    assert (repair.file, repair.source, repair.change) == (__file__, *CASES[0][3:])
    assert softmax_of_mean.__code__.co_firstlineno + 1 == repair.line
    assert not check_rule(softmax, softmax_of_mean, X, contracts=False, transforms=(), repair=False).repair


def times(factor, callback):
    """The sine of X, and its gradient times a factor, by JAX or behind a callback."""

    def backward(X, dY):
        if not callback:
            return (factor * (dY * jnp.cos(X)),)
        like = jax.ShapeDtypeStruct(X.shape, X.dtype)
        return (factor * jax.pure_callback(lambda X, dY: np.asarray(dY) * np.cos(np.asarray(X)), like, X, dY),)

    return lambda X: (jnp.sin(X), X), backward


def test_a_callback_is_no_step_to_run_a_thousand_times():
    quick = {"contracts": False, "transforms": ()}
    assert check_rule(*times(2, callback=False), X, **quick).repair
    report = check_rule(*times(2, callback=True), X, **quick)
    assert (report.verdict, report.repair) == ("FAIL", ())
    assert "no repair was searched for: the gradient runs a kernel or a callback" in report.notes


def test_a_search_ends():
    report = check_rule(softmax, softmax_of_mean, X, contracts=False, transforms=(), repair_seconds=0.0)
    assert (report.verdict, report.repair) == ("FAIL", ())


def softmax_by_branches(P, dP):
    """Where a row is sure of its class, `missed` is the mean's rounding; the mean itself was left out."""
    mean = jnp.sum(P * dP, -1, keepdims=True)
    sure = jnp.any(P > 0.75)
    missed = jax.lax.cond(sure, lambda: jnp.sum(P * (dP - mean), -1, keepdims=True), lambda: jnp.zeros_like(mean))
    return (P * (dP - missed),)


def test_a_repair_is_right_in_every_branch():
    """Twice the dP in the branch would be right where it is taken, as it is at these inputs."""
    (X,) = normal((5, 4))
    found = of_rule(softmax, softmax_by_branches, 4 * X)
    assert not any("2" in change for _, change in found), found
