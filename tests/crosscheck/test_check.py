"""The entry points, end to end: what each takes, what it says of right and wrong gradients."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crosscheck.subjects import failing, linear, linear_backward

import handgrad as hg
from handgrad import rules
from handgrad.crosscheck import CheckFailed, check_custom_vjp, check_function, check_layer, check_rule

QUICK = {"control": False, "contracts": False, "transforms": ()}
rng = np.random.default_rng(0)


ARGS = tuple(rng.standard_normal(shape) for shape in ((5, 4), (4, 3), (3,)))


# check_rule


def test_a_right_rule_by_default():
    report = check_rule(linear, linear_backward, *ARGS)
    assert report.ok
    assert (report.verdict, report.reason, report.culprit, report.name) == ("PASS", "", "", "linear_backward")
    assert {row.leaf for row in report.rows} == {"X", "W", "b"}
    assert all(row.rho <= 3 and row.power < 1e-13 and row.bad == 0 and row.heat == () for row in report.rows)
    assert all(contract.status == "PASS" for contract in report.contracts)
    assert len(report.contracts) == 11
    assert report.control is not None
    assert report.control.survived == ()
    assert sum(report.control.killed.values()) > 100
    assert report.settings["reference"] == "autodiff of its own forward pass"
    assert report.reproduce == ""
    report.raise_if_failed()


@pytest.mark.parametrize(("leaf", "size"), [(0, 1e-9), (1, 1e-9), (2, 1e-9), (1, -2.0), (2, np.nan)])
def test_the_wrong_leaf_is_named(leaf, size):
    def wrong(residuals, dY):
        found = list(linear_backward(residuals, dY))
        found[leaf] = found[leaf] * (1 + size)
        return tuple(found)

    report = check_rule(linear, wrong, *ARGS, differences=False, **QUICK)
    name = "XWb"[leaf]
    assert (report.verdict, report.culprit, failing(report)) == ("FAIL", "hand", [name])
    assert report.rows[0].leaf == name
    assert report.reason.startswith(f"{name}: ")
    assert report.rows[0].bad == 1.0
    with pytest.raises(CheckFailed, match=rf"FAIL  wrong: {name}: "):
        report.raise_if_failed()


class Parameters(NamedTuple):
    W: object
    b: object


def test_pytrees_in_and_out_by_name():
    def forward(params, X, extra):
        Y = X @ params[0].W + params[0].b[None]
        return {"Y": Y, "sum": [Y.sum(), jnp.argmax(Y)], "size": (Y**2).sum(0)}, (X, params[0].W, Y, extra)

    def backward(residuals, dout, size=1.0):
        X, W, Y, _ = residuals
        dY = dout["Y"] + dout["sum"][0] + 2 * Y * dout["size"][None]
        assert dout["sum"][1].dtype == jax.dtypes.float0
        return (Parameters(X.T @ dY, size * dY.sum(0)),), dY @ W.T, {"ids": None, "none": None}

    args = ((Parameters(ARGS[1], ARGS[2]),), ARGS[0], {"ids": np.arange(3), "none": None})
    report = check_rule(forward, backward, *args, **QUICK)
    assert report.ok, report
    assert {row.leaf for row in report.rows} == {"params.0.W", "params.0.b", "X"}
    wrong = check_rule(forward, functools.partial(backward, size=1 + 1e-9), *args, **QUICK)
    assert failing(wrong) == ["params.0.b"]


def test_a_leaf_of_the_output_that_is_ignored():
    """A large and a small output: forgetting the small one's cotangent shows."""

    def forward(X):
        return (1e6 * jnp.tanh(X), 1e-6 * jnp.sin(X)), X

    def backward(X, dY, keep=1.0):
        return (1e6 * dY[0] * (1 - jnp.tanh(X) ** 2) + keep * 1e-6 * dY[1] * jnp.cos(X),)

    assert check_rule(forward, backward, ARGS[0], **QUICK).ok
    for keep in (0.0, 1.001):
        wrong = check_rule(forward, functools.partial(backward, keep=keep), ARGS[0], differences=False, **QUICK)
        assert wrong.verdict == "FAIL", keep


def test_none_is_zero_and_says_so():
    report = check_rule(linear, lambda r, dY: (*linear_backward(r, dY)[:2], None), *ARGS, **QUICK)
    assert failing(report) == ["b"]
    assert report.reason == "b: None, which JAX takes for zero"


def test_the_wrong_shape():
    report = check_rule(linear, lambda r, dY: (*linear_backward(r, dY)[:2], dY), *ARGS)
    assert failing(report) == ["b"]
    assert (report.rows[0].came, report.rows[0].shape) == ((5, 3), (3,))
    assert "by hand shape (5, 3), autodiff shape (3,)\nPASS" in str(report), "no worst element, no share"
    assert "sum over axis 0" in report.reason


def test_factors_are_multiplied_out():
    report = check_rule(rules.linear_forward, rules.linear_backward, *ARGS, reference=lambda X, W, b: X @ W + b[None])
    assert report.ok


def test_empty_and_single():
    empty = check_rule(linear, linear_backward, ARGS[0][:0], *ARGS[1:])
    assert empty.verdict == "INCONCLUSIVE", empty
    single = check_rule(linear, linear_backward, *(a.reshape(-1)[:1].reshape([1] * a.ndim) for a in ARGS))
    assert single.ok, single


# complex: pairings are Re Σ dY · Y, without a conjugate


COMPLEX = {
    "square": (lambda z: z * z, lambda z, dY: (2 * z * dY,)),
    "conjugate": (lambda z: z * jnp.conj(z) * 1j, lambda z, dY: (1j * dY * jnp.conj(z) + jnp.conj(1j * dY * z),)),
    "to real": (lambda z: jnp.real(z) * jnp.imag(z), lambda z, dY: (dY * (jnp.imag(z) - 1j * jnp.real(z)),)),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [("square", np.complex128), ("conjugate", np.complex64), ("to real", np.complex128)]
)
def test_complex(name, dtype):
    f, backward = COMPLEX[name]
    z = (rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))).astype(dtype)
    report = check_rule(lambda z: (f(z), z), backward, z)
    assert report.ok, report
    wrong = check_rule(lambda z: (f(z), z), lambda z, dY: (jnp.conj(backward(z, dY)[0]),), z, **QUICK)
    assert wrong.verdict == "FAIL"
    assert "conjugate" in wrong.reason


def test_complex_and_real_outputs_together():
    def forward(z):
        return {"square": z * z, "size": jnp.real(z * jnp.conj(z))}, z

    def backward(z, dY):
        return (2 * z * dY["square"] + 2 * dY["size"] * jnp.conj(z),)

    z = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
    report = check_rule(forward, backward, z, **QUICK)
    assert report.ok, report


# check_custom_vjp


def scaled(nondiff=None):
    def f(x, power, W):
        return (x**power) @ W

    given = {"nondiff_argnums": (1,)} if nondiff == "argnums" else {"nondiff_argnames": ("power",)}
    wrapped = jax.custom_vjp(f, **given)

    def backward(power, residuals, dY, size=1.0):
        x, W = residuals
        return power * x ** (power - 1) * (dY @ W.T), size * (x**power).T @ dY

    return f, wrapped, backward


@pytest.mark.parametrize("nondiff", ["argnums", "argnames"])
@pytest.mark.parametrize("size", [1.0, 1 + 1e-9])
def test_custom_vjp_with_static_arguments(nondiff, size):
    f, wrapped, backward = scaled(nondiff)
    wrapped.defvjp(lambda x, power, W: (f(x, power, W), (x, W)), functools.partial(backward, size=size))
    reference = f if nondiff == "argnums" else None
    report = check_custom_vjp(wrapped, reference, ARGS[0], 3, ARGS[1], **QUICK)
    assert report.ok == (size == 1.0), report
    assert failing(report) == ([] if size == 1.0 else ["W"])


def test_custom_vjp_with_a_function_as_an_argument():
    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def apply(g, x):
        return g(x)

    apply.defvjp(lambda g, x: (g(x), x), lambda g, x, dY: (dY * jnp.cos(x),))
    assert check_custom_vjp(apply, None, jnp.sin, ARGS[0], **QUICK).ok
    assert not check_custom_vjp(apply, None, jnp.cos, ARGS[0], **QUICK).ok


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: functools.partial(f), lambda f: lambda x: f(x)])
def test_a_custom_vjp_inside_another_wrapper(wrap):
    """jit's __wrapped__ is the custom_vjp function: as a reference it would agree with itself."""
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, dY: (dY * jnp.cos(x) * 1.5,))
    for reference in (jnp.sin, None):
        for differences in (True, False):
            report = check_custom_vjp(wrap(f), reference, ARGS[0], differences=differences, **QUICK)
            assert report.verdict in (("FAIL",) if reference else ("FAIL", "INVALID")), (reference, differences)


def test_custom_vjp_keywords_and_integers():
    f = jax.custom_vjp(lambda x, ids, scale: x[ids] * scale)
    f.defvjp(
        lambda x, ids, scale: (x[ids] * scale, (ids, x, scale)),
        lambda r, dY: (jnp.zeros_like(r[1]).at[r[0]].add(dY * r[2]), None, (dY * r[1][r[0]]).sum()),
    )
    report = check_custom_vjp(f, None, ARGS[0], np.array([0, 2, 2]), **QUICK, keywords={"scale": 2.0})
    assert report.ok, report
    assert [row.leaf for row in report.rows] == ["x"]


# check_function


def test_function():
    def f(x, W, n):
        return jnp.sum(jnp.sin(x @ W) ** 2) * n

    x, W, _ = ARGS
    assert check_function(f, jax.grad(f), x, W, 3, **QUICK).ok
    both = check_function(f, jax.grad(f, (1, 0)), x, W, 3, argnums=(1, -3), **QUICK)
    assert both.ok, both
    assert {row.leaf for row in both.rows} == {"x", "W"}
    assert failing(check_function(f, jax.grad(f, (0, 1)), x, W, 3, argnums=(1, 0), **QUICK)) == ["W", "x"]
    half = check_function(f, lambda *a: jax.grad(f)(*a) / 2, x, W, 3, **QUICK)
    assert half.reason == "x: half of what it should be"


def test_function_of_a_python_float():
    assert check_function(lambda x: x**3, lambda x: 3 * x**2, 1.7, **QUICK).ok
    assert not check_function(lambda x: x**3, lambda x: 2 * x**2, 1.7, **QUICK).ok


# check_layer


def test_layer():
    report = check_layer(hg.linear(3), ARGS[0], reference=lambda p, x: x @ p.W + p.b[None], **QUICK)
    assert report.ok, report
    assert {row.leaf for row in report.rows} == {"params.W", "params.b", "x"}
    good = hg.linear(3)
    bad = good._replace(backward=lambda r, dy: (good.backward(r, 2 * dy)[0], good.backward(r, dy)[1]))
    assert failing(check_layer(bad, ARGS[0], **QUICK)) == ["x"]
    assert check_layer(hg.gelu(), ARGS[0], **QUICK).ok


def test_layer_with_a_key():
    def forward(params, x, key=None):
        kept = jnp.ones(x.shape) if key is None else jax.random.bernoulli(key, 0.5, x.shape) * 2.0
        return x * kept, kept

    dropout = hg.Layer(lambda key, x: (), forward, lambda kept, dy: (dy * kept, ()))
    assert check_layer(dropout, ARGS[0], key=jax.random.key(1), **QUICK).ok
