"""Rules that others wrote: jax.nn, jax.scipy.special, jax.numpy.linalg, optax; right ones, and broken on purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.numpy import linalg
from jax.scipy import special

import handgrad as hg

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6))
SHARES = RNG.uniform(0.1, 0.9, (4, 5))
A, B = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 2))
S = A @ A.T + 4 * np.eye(4)
C = A + 1j * RNG.standard_normal((4, 4))
LABELS = RNG.dirichlet(np.ones(4), 5)
LOGITS = RNG.standard_normal((5, 4))
ONE_HOT = np.eye(4)[[0, 3, 1, 1, 2]]
QUICK = {"control": False}


def names(report):
    """The promises that are broken."""
    return [contract.name for contract in report.contracts if contract.status == "FAIL"]


def check_right(report):
    report.raise_if_failed()
    assert report.reason == ""
    assert names(report) == []
    assert all(row.status == "PASS" and row.power < 0.2 for row in report.rows), str(report)


def in_turn(table):
    """Each with one dtype: compiling is what a check costs."""
    return [(name, ("float64", "float32")[i % 2]) for i, name in enumerate(table)]


def plain_softmax(X):
    E = jnp.exp(X)
    return E / E.sum(-1, keepdims=True)


def plain_gelu(x):
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi).item() * (x + 0.044715 * x**3)))


# Functions of one array with a derivative of their own (but gelu), from their definitions.
OF_ONE = {
    "relu": (jax.nn.relu, lambda x: jnp.maximum(x, 0), X),
    "relu6": (jax.nn.relu6, lambda x: jnp.clip(x, 0, 6), 5 * X),
    "gelu": (jax.nn.gelu, plain_gelu, X),
    "silu": (jax.nn.silu, lambda x: x / (1 + jnp.exp(-x)), X),
    "softmax": (jax.nn.softmax, plain_softmax, X),
    "log_softmax": (jax.nn.log_softmax, lambda x: jnp.log(plain_softmax(x)), X),
    "logsumexp": (jax.nn.logsumexp, lambda x: jnp.log(jnp.exp(x).sum()), X),
    "log1mexp": (jax.nn.log1mexp, lambda x: jnp.log(1 - jnp.exp(-x)), 3 * SHARES),
    "sinc": (jnp.sinc, lambda x: jnp.sin(np.pi * x) / (np.pi * x), SHARES),
    "cumprod": (jnp.cumprod, lambda x: jnp.stack([jnp.prod(x[: i + 1]) for i in range(4)]), np.array([1.0, 0, 2, 3])),
}


@pytest.mark.parametrize(("name", "dtype"), in_turn(OF_ONE))
def test_a_strangers_function_is_right(name, dtype):
    f, plain, x = OF_ONE[name]
    report = hg.check_custom_vjp(f, plain, x, dtype=dtype, **QUICK)
    check_right(report)
    assert [row.dtype for row in report.rows] == [dtype]


@pytest.mark.parametrize(("name", "dtype"), [("relu", "bfloat16"), ("gelu", "float16"), ("softmax", "bfloat16")])
def test_in_half_precision_too(name, dtype):
    f, plain, x = OF_ONE[name]
    check_right(hg.check_custom_vjp(f, plain, x, dtype=dtype, **QUICK))


def test_no_mutant_of_jax_nn_gelu_survives():
    control = hg.check_custom_vjp(jax.nn.gelu, plain_gelu, X).control
    assert control.survived == ()
    assert sum(control.killed.values()) >= 70


@pytest.mark.parametrize(
    ("f", "plain"),
    [
        (special.xlogy, lambda x, y: x * jnp.log(y)),
        (jnp.logaddexp, lambda x, y: jnp.log(jnp.exp(x) + jnp.exp(y))),
    ],
    ids=["xlogy", "logaddexp"],
)
def test_of_two_arguments(f, plain):
    report = hg.check_custom_vjp(f, plain, SHARES, SHARES[::-1] + 0.1, **QUICK)
    check_right(report)
    assert len(report.rows) == 2


def test_relu_at_its_kink_takes_another_subgradient_than_maximum():
    report = hg.check_custom_vjp(jax.nn.relu, lambda x: jnp.maximum(x, 0), np.array([0.0, 1, -2]), **QUICK)
    assert report.ok
    (kink,) = report.kinks
    assert kink.startswith("x[0] = 0 is on a kink: slopes from 0 to ")
    assert "0 by hand" in kink


def test_the_double_where_trap_is_autodiffs_fault():
    report = hg.check_custom_vjp(
        jax.nn.elu, lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1), np.array([1000.0, 1, -2]), **QUICK
    )
    assert (report.verdict, report.culprit) == ("PASS", "autodiff")
    assert report.reason.startswith("autodiff is wrong at x[0]: it says nan, differences ")


# ---- a softmax, broken


def softmax_with(backward):
    @jax.custom_vjp
    def softmax(X):
        return jax.nn.softmax(X)

    softmax.defvjp(lambda X: (jax.nn.softmax(X),) * 2, backward)
    return softmax


def right_softmax(P, dP):
    return P * (dP - (P * dP).sum(-1, keepdims=True))


BROKEN_SOFTMAX = {
    "2 × too large": lambda P, dP: (2 * right_softmax(P, dP),),
    "mean instead of sum: factor 1/4 = 1/batch": lambda P, dP: (right_softmax(P, dP) / 4,),
    "sign flipped": lambda P, dP: (-right_softmax(P, dP),),
    "examples": lambda P, dP: (right_softmax(P, dP)[::-1],),
    "ignores the cotangent": lambda P, dP: (right_softmax(P, P + dP * 0),),
    "float32": lambda P, dP: (right_softmax(P.astype("float32"), dP).astype(P.dtype),),
    "off by": lambda P, dP: (P * (dP - (P * dP).mean(-1, keepdims=True)),),
    "off by 3.2": lambda P, dP: (P * (dP - dP.sum(-1, keepdims=True)),),
}


@pytest.mark.parametrize("says", BROKEN_SOFTMAX)
def test_a_broken_softmax_fails(says):
    report = hg.check_custom_vjp(softmax_with(BROKEN_SOFTMAX[says]), plain_softmax, X, **QUICK)
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    if says == "ignores the cotangent":
        assert "linear in the cotangent" in names(report)
    else:
        assert says in report.reason, report.reason
    with pytest.raises(hg.crosscheck.CheckFailed, match=r"^FAIL  softmax"):
        report.raise_if_failed()


def test_a_sum_over_all_rows_lets_a_nan_out_of_its_example():
    def backward(P, dP):
        return (P * (dP - (P * dP).sum()),)

    report = hg.check_custom_vjp(softmax_with(backward), plain_softmax, X, **QUICK)
    assert report.verdict == "FAIL"
    assert "a NaN stays in its example" in names(report)


def test_the_right_one_passes_under_every_transformation():
    f = softmax_with(lambda P, dP: (right_softmax(P, dP),))
    everything = ("jit", "vmap", "scan", "checkpoint", "second_order")
    report = hg.check_custom_vjp(f, plain_softmax, X[:2, :3], transforms=everything, **QUICK)
    check_right(report)


def test_what_shows_nothing_is_inconclusive():
    def total(X):
        return jax.nn.softmax(X).sum()

    assert hg.check_function(total, lambda X: 0 * X, X, **QUICK).verdict == "INCONCLUSIVE"
    assert hg.check_function(total, lambda X: X, X, **QUICK).verdict == "FAIL"
    equal = hg.check_custom_vjp(jax.nn.softmax, plain_softmax, np.ones((4, 6)), **QUICK)
    assert equal.verdict == "INCONCLUSIVE"
    assert equal.reason == "the inputs are all equal: a gradient that mixes up elements would pass"


# ---- optax


def plain_cross_entropy(logits, labels):
    return -jnp.sum(labels * jnp.log(plain_softmax(logits)), -1)


def onto_simplex(v):
    u = jnp.sort(v)[::-1]
    means = (jnp.cumsum(u) - 1) / jnp.arange(1, v.size + 1)
    return jnp.maximum(v - means[jnp.sum(u > means) - 1], 0)


@pytest.mark.parametrize("labels", [LABELS, ONE_HOT], ids=["soft", "one-hot"])
def test_optaxs_weighted_log_softmax_is_right(labels):
    check_right(hg.check_custom_vjp(optax.safe_softmax_cross_entropy, plain_cross_entropy, LOGITS, labels, **QUICK))


def test_optaxs_projection_onto_the_simplex_is_right():
    check_right(hg.check_custom_vjp(optax.projections.projection_simplex, onto_simplex, LOGITS[0], **QUICK))


def test_scale_gradient_is_wrong_by_design_and_right_by_intention():
    def halved(x):
        return optax.scale_gradient(x, 0.5)

    report = hg.check_custom_vjp(halved, lambda x: x, X, **QUICK)
    assert (report.verdict, report.reason) == ("FAIL", "x: half of what it should be")

    def intended(x):
        return 0.5 * x + jax.lax.stop_gradient(0.5 * x)

    check_right(hg.check_custom_vjp(halved, intended, X, differences=False, **QUICK))


def test_a_straight_through_estimator_needs_its_intention_too():
    @jax.custom_vjp
    def rounded(x):
        return jnp.round(x)

    rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, dY: (dY,))
    report = hg.check_custom_vjp(rounded, None, 3 * X, **QUICK)
    assert (report.verdict, report.reason) == ("FAIL", "x: not zero, as it should be")

    def intended(x):
        return x + jax.lax.stop_gradient(jnp.round(x) - x)

    check_right(hg.check_custom_vjp(rounded, intended, 3 * X, differences=False, **QUICK))


# ---- jax.numpy.linalg


def inv_forward(A):
    Y = linalg.inv(A)
    return Y, Y


def inv_backward(Y, dY):
    return (-Y.mT @ dY @ Y.mT,)


def solve_forward(A, B):
    X = linalg.solve(A, B)
    return X, (A, X)


def solve_backward(residuals, dX):
    A, X = residuals
    dB = linalg.solve(A.T, dX)
    return -dB @ X.T, dB


def slogdet_forward(A):
    return tuple(linalg.slogdet(A)), A


def slogdet_backward(A, cotangents):
    return (cotangents[1] * linalg.inv(A).T,)


def cholesky_forward(A):
    L = linalg.cholesky(A)
    return L, L


def cholesky_backward(L, dL, symmetric=True):
    P = jnp.tril(L.T @ dL)
    P = P - jnp.diag(jnp.diag(P)) / 2
    dA = linalg.solve(L.T, linalg.solve(L.T, P.T).T)
    return ((dA + dA.T) / 2 if symmetric else dA,)


def eigh_forward(A):
    w, V = linalg.eigh(A)
    return (w, V), (w, V)


def eigh_backward(residuals, cotangents):
    (w, V), (dw, dV) = residuals, cotangents
    same = jnp.eye(w.size, dtype=w.dtype)
    dA = V @ (jnp.diag(dw) + (1 - same) / (w[None, :] - w[:, None] + same) * (V.T @ dV)) @ V.T
    return ((dA + dA.T) / 2,)


def qr_forward(A):
    Q, R = linalg.qr(A)
    return (Q, R), (Q, R)


def qr_backward(residuals, cotangents):
    (Q, R), (dQ, dR) = residuals, cotangents
    M = R @ dR.T - dQ.T @ Q
    return (linalg.solve(R, (dQ + Q @ (jnp.tril(M) + jnp.tril(M, -1).T)).T).T,)


def singular_forward(A):
    U, s, Vt = linalg.svd(A, full_matrices=False)
    return s, (U, Vt)


def singular_backward(residuals, ds):
    U, Vt = residuals
    return (U @ jnp.diag(ds) @ Vt,)


def norm_forward(x):
    y = linalg.norm(x)
    return y, (x, y)


def norm_backward(residuals, dy):
    x, y = residuals
    return (dy * x / y,)


RULES = {
    "inv, batched": (inv_forward, inv_backward, (RNG.standard_normal((2, 3, 3)),)),
    "solve": (solve_forward, solve_backward, (A, B)),
    "slogdet": (slogdet_forward, slogdet_backward, (A,)),
    "cholesky": (cholesky_forward, cholesky_backward, (S,)),
    "eigh": (eigh_forward, eigh_backward, (S,)),
    "qr": (qr_forward, qr_backward, (A,)),
    "singular values": (singular_forward, singular_backward, (A[:, :3],)),
    "norm": (norm_forward, norm_backward, (B,)),
}


@pytest.mark.parametrize(("name", "dtype"), in_turn(RULES))
def test_a_pullback_of_linear_algebra_is_right(name, dtype):
    forward, backward, args = RULES[name]
    check_right(hg.check_rule(forward, backward, *args, dtype=dtype, **QUICK))


@pytest.mark.parametrize(
    ("says", "forward", "backward", "args"),
    [
        ("A: the gradient of B", solve_forward, lambda r, dX: solve_backward(r, dX)[::-1], (A, S[::-1])),
        ("B: sign flipped", solve_forward, lambda r, dX: (solve_backward(r, dX)[0], -solve_backward(r, dX)[1]), (A, B)),
        ("A: half of what it should be", cholesky_forward, lambda L, dL: (cholesky_backward(L, dL)[0] / 2,), (S,)),
        ("A: right on the diagonal only", cholesky_forward, lambda L, dL: cholesky_backward(L, dL, False), (S,)),
        ("A: ignores the cotangent of output 1", eigh_forward, lambda r, d: eigh_backward(r, (d[0], 0 * d[1])), (S,)),
        ("A: off by", inv_forward, lambda Y, dY: (-Y @ dY @ Y,), (A,)),
        ("x: NaN in 1 of 3 elements", lambda x: (x.prod(), x), lambda x, d: (d * x.prod() / x,), (np.r_[0.0, 2, 3],)),
    ],
    ids=["swapped", "sign", "half", "not symmetric", "eigenvalues alone", "no transpose", "0/0"],
)
def test_an_old_mistake_is_found(says, forward, backward, args):
    report = hg.check_rule(forward, backward, *args, **QUICK)
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert says in [f"{row.leaf}: {row.diagnosis}" for row in report.rows] or says in report.reason, str(report)


@pytest.mark.parametrize(
    ("matrix", "gradient", "reason"),
    [
        (A, lambda A: linalg.inv(A).T, ""),
        (A, linalg.inv, "A: transposed"),
        (A, lambda A: -linalg.inv(A).T, "A: sign flipped"),
        (C, lambda A: linalg.inv(A).T, ""),
        (C, lambda A: linalg.inv(A).T.conj(), "A: conjugate missing"),
    ],
    ids=["right", "transposed", "sign", "complex", "conjugate"],
)
def test_the_gradient_of_a_logarithm_of_a_determinant(matrix, gradient, reason):
    report = hg.check_function(lambda A: linalg.slogdet(A)[1], gradient, matrix, **QUICK)
    assert (report.verdict, report.reason) == ("FAIL" if reason else "PASS", reason)


def test_a_fourier_transform_is_its_own_transpose():
    def forward(z):
        return jnp.fft.fft(z), None

    z = X + 1j * X[::-1]
    check_right(hg.check_rule(forward, lambda _, dY: (jnp.fft.fft(dY),), z, **QUICK))
    report = hg.check_rule(forward, lambda _, dY: (6 * jnp.fft.ifft(dY),), z, **QUICK)
    assert report.reason.startswith("z: conjugate missing")


def test_an_adaptive_step_is_looked_at_with_ones_own_tolerance():
    def steps(x):  # Newton's method, stopped early: right to 1e-9 or so
        y = x
        for _ in range(5):
            y = (y + x / y) / 2
        return y

    x = np.array([1.5, 2.0, 3.0])
    gradient = hg.check_function(lambda x: jnp.sqrt(x).sum(), lambda x: 0.5 / steps(x) * (1 + 1e-8), x, **QUICK)
    assert gradient.verdict == "FAIL"
    assert hg.check_function(lambda x: jnp.sqrt(x).sum(), lambda x: 0.5 / steps(x), x, rtol=1e-6, **QUICK).ok


# ---- what strangers brought to light


def test_the_worst_element_is_the_one_that_is_shown():
    def backward(x, dY):
        return (dY * jnp.cos(x) * jnp.array([1 + 1e-6, 1.0, 3.0]),)

    report = hg.check_rule(lambda x: (jnp.sin(x), x), backward, np.array([0.1, 0.2, 0.3]), **QUICK)
    assert report.rows[0].index == (2,)


def test_a_scalar_output_has_no_examples_to_keep_apart():
    def backward(x, dy):
        return (dy * jnp.prod(x) / x,)

    check_right(hg.check_rule(lambda x: (jnp.prod(x), x), backward, np.array([1.0, -1, 2, 3]), **QUICK))


def test_where_autodiff_is_wrong_its_forward_mode_accuses_nobody():
    def plain_xlogy(x, y):  # right, and differentiated wrong at 0: autodiff takes the branch of the constant
        return jnp.where(x == 0, 0.0, x * jnp.log(y))

    report = hg.check_custom_vjp(special.xlogy, plain_xlogy, np.array([0.0, 0.5, 2]), np.array([0.3, 2, 3]), **QUICK)
    assert (report.verdict, report.culprit) == ("PASS", "autodiff")


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_a_kink_that_shows_on_its_left_alone_is_one(slope):
    def backward(x, dY):
        return (jnp.where(x < 0, -dY, jnp.where(x == 0, -slope * dY, 0)),)

    report = hg.check_rule(lambda x: (jnp.maximum(-x, 0), x), backward, np.array([0.0, 1, -2]), **QUICK)
    assert report.ok, str(report)
    assert len(report.kinks) == 1


def test_a_slope_outside_both_sides_is_no_subgradient():
    def backward(x, dY):
        ties = x == x.max(-1, keepdims=True)
        return (ties * jnp.where(ties.sum(-1, keepdims=True) > 1, 1.5, 1.0) * dY[:, None],)

    report = hg.check_rule(lambda x: (x.max(-1), x), backward, np.array([[1.0, 2, 2, 0], [3, 3, 3, 1]]), **QUICK)
    assert (report.verdict, report.culprit) == ("FAIL", "kink")


def test_autodiffs_nan_on_a_kink_leaves_the_rest_sure():
    def forward(X):
        lengths = jnp.sqrt(jnp.sum(X * X, -1))
        return lengths, (X, lengths)

    def backward(residuals, dY):
        X, lengths = residuals
        return ((dY / jnp.where(lengths == 0, 1, lengths))[:, None] * X,)

    report = hg.check_rule(forward, backward, X[:, :3] * np.array([[1.0], [0], [1], [1]]), **QUICK)
    assert report.ok, str(report)
    assert len(report.kinks) == 3


def test_an_optional_argument_of_nondiff_argnums_may_stay_away():
    assert hg.check_custom_vjp(special.log_ndtr, None, np.array([0.1, 0.2]), **QUICK).verdict == "PASS"


def test_an_unstable_reference_is_not_an_ill_conditioned_function():
    x = np.float32([[59.0, 60, -60], [49, -20, 3]])
    report = hg.check_custom_vjp(jax.nn.softmax, plain_softmax, x, **QUICK)
    assert report.culprit != "conditioning"


def test_what_overflows_by_autodiff_too_is_not_wrong():
    report = hg.check_rule(lambda x: (x * x, x), lambda x, dY: (2 * x * dY,), np.float16([300, 2, 1]), **QUICK)
    assert report.verdict != "FAIL"


def test_ones_own_tolerance_is_the_forward_passs_too():
    def backward(x, dY):
        return (jnp.cos(x) * dY,)

    def forward(x):
        return jnp.sin(x) * (1 + 1e-9), x

    x = np.array([0.5, 1.0, 2.0])
    assert hg.check_rule(forward, backward, x, reference=jnp.sin, **QUICK).verdict == "FAIL"
    assert hg.check_rule(forward, backward, x, reference=jnp.sin, rtol=1e-6, **QUICK).verdict == "PASS"


def test_the_adjoint_identity_sees_a_missing_conjugate():
    report = hg.check_function(lambda z: jnp.sum(jnp.abs(z) ** 2) / 2, lambda z: z, C, **QUICK)
    assert report.reason == "z: conjugate missing"
    assert any(name.startswith("adjoint") for name in names(report))


def test_digits_that_xla_loses_in_a_special_function_are_no_wrong_forward_pass():
    report = hg.check_custom_vjp(
        special.logit, lambda p: jnp.log(p) - jnp.log1p(-p), np.array([0.2, 0.4, 0.41]), **QUICK
    )
    assert report.ok, str(report)
