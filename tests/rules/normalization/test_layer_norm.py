"""Layer norm and RMS norm, and what holds for every norm: invariances, precision, policies, refusals."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

import handgrad as hg
from handgrad import rules
from handgrad.rules.normalization import _norms

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, 4, 6)) + 1)
DY = jnp.asarray(RNG.standard_normal((3, 4, 6)))
GAMMA, BETA = jnp.asarray(RNG.standard_normal(6)), jnp.asarray(RNG.standard_normal(6))
NORMS = {"layer_norm": {}, "rms_norm": {}, "group_norm": {"groups": 2}, "instance_norm": {}, "batch_norm": {}}
AXES = {"layer_norm": 2, "group_norm": (1, 3), "instance_norm": 1, "batch_norm": (0, 1)}
every_norm = pytest.mark.parametrize("op", NORMS)
every_centered_norm = pytest.mark.parametrize("op", AXES)


def forward(op, X, *parameters, **options):
    return getattr(rules, op).forward(X, *parameters, **(NORMS[op] | options))


def backward(op, residuals, dY, **options):
    return getattr(rules, op).backward(residuals, dY, **(NORMS[op] | options))


def parameters_of(op):
    return (GAMMA,) if op == "rms_norm" else (GAMMA, BETA)


def in_sets(op, X):
    """X with a group's features on an axis of their own."""
    return X.reshape(3, 4, 2, 3) if op == "group_norm" else X


@every_centered_norm
def test_mean_zero_and_variance_one(op):
    A = in_sets(op, forward(op, X, eps=1e-14)[0])
    np.testing.assert_allclose(A.mean(AXES[op]), 0, atol=1e-13)
    np.testing.assert_allclose(A.var(AXES[op]), 1, rtol=1e-10)


@every_centered_norm
def test_dx_sums_to_zero_over_whatever_was_centered(op):
    """Moving the whole set changes nothing."""
    dX = in_sets(op, backward(op, forward(op, X, GAMMA, BETA)[1], DY)[0])
    np.testing.assert_allclose(dX.sum(AXES[op]), 0, atol=1e-12)


@every_norm
def test_dx_stands_at_a_right_angle_to_x_but_for_eps(op):
    """Stretching the whole set changes nothing."""
    options = {"eps": 1e-14}
    dX = backward(op, forward(op, X, *parameters_of(op), **options)[1], DY, **options)[0]
    along = in_sets(op, dX * X).sum(AXES.get(op, 2))
    np.testing.assert_allclose(along, 0, atol=1e-11)


def test_rms_norm_of_centered_rows_is_layer_norm():
    centered = X - X.mean(-1, keepdims=True)
    options = {"eps": 0.1}
    (Y, kept), (expected, kept_too) = (
        forward("rms_norm", centered, GAMMA, **options),
        forward("layer_norm", X, GAMMA, **options),
    )
    np.testing.assert_allclose(Y, expected, rtol=1e-13, atol=1e-14)
    dX, dgamma = backward("rms_norm", kept, DY, **options)
    expected_dX, expected_dgamma, _ = backward("layer_norm", kept_too, DY, **options)
    np.testing.assert_allclose(dX - dX.mean(-1, keepdims=True), expected_dX, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dgamma.sum(), expected_dgamma.sum(), rtol=1e-12)


@every_norm
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_policies_give_the_same_numbers(op, dtype):
    x, dy, *parameters = (a.astype(dtype) for a in (X, DY, *parameters_of(op)))
    (Y, saved), (again, kept) = (forward(op, x, *parameters, residuals=r) for r in ("save", "recompute"))
    assert (again == Y).all()
    assert saved.X is None
    assert saved.A.dtype == dtype
    assert kept.A is None
    assert kept.X is x
    found, expected = (hg.materialize(backward(op, residuals, dy)) for residuals in (kept, saved))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


@every_norm
def test_parameters_are_factors_per_example(op):
    """γ and β of each example, from its own X̂ and dY."""
    Y, residuals = forward(op, X)
    _, kept = forward(op, X, *parameters_of(op))
    _, dgamma, *dbeta = backward(op, kept, DY)
    assert isinstance(dgamma, hg.Hadamard)
    np.testing.assert_allclose(dgamma.per_example(), (Y * DY).sum(1), rtol=1e-12, atol=1e-14)
    for factor in dbeta:
        assert isinstance(factor, hg.Total)
        np.testing.assert_allclose(factor.per_example(), DY.sum(1), rtol=1e-12, atol=1e-14)
    assert all(d is None for d in backward(op, residuals, DY)[1:])


@every_norm
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_statistics_in_float32_at_least(op, dtype):
    Y, residuals = forward(op, X.astype(dtype))
    assert Y.dtype == dtype
    statistics = [getattr(residuals, name) for name in ("mean", "variance", "square") if hasattr(residuals, name)]
    assert all(a.dtype == jnp.float32 for a in statistics)


@every_norm
def test_parameters_of_a_larger_dtype(op):
    """Y in the promoted dtype, every cotangent in its argument's."""
    parameters = [p.astype("float32") for p in parameters_of(op)]
    Y, residuals = forward(op, X.astype("bfloat16"), *parameters)
    assert Y.dtype == jnp.float32
    dX, *dparameters = backward(op, residuals, DY.astype("float32"))
    assert dX.dtype == jnp.bfloat16
    assert all(d.sum().dtype == jnp.float32 for d in dparameters)
    with pytest.raises(hg.InputError, match=rf"^{op}_backward: dY must be the cotangent of Y, float32 "):
        backward(op, residuals, DY.astype("bfloat16"))


def plain(X, gamma, beta):
    """Layer norm of a column of text: two passes, uncorrected."""
    mean = jnp.mean(X, -1, keepdims=True)
    variance = jnp.mean((X - mean) ** 2, -1, keepdims=True)
    return (X - mean) / jnp.sqrt(variance + 1e-5) * jnp.broadcast_to(gamma, X.shape) + jnp.broadcast_to(beta, X.shape)


def outcome(function, X, gamma, beta, dY):
    Y, pullback = jax.vjp(function, X, gamma, beta)
    return Y, *pullback(dY)


@pytest.mark.parametrize("jit", [True, False])
def test_a_large_mean_costs_no_digits(jit):
    """1000 + normal in float32, where plain two passes lose three digits: see the derivation."""
    given = [1e3 + RNG.standard_normal((16, 64)), *RNG.standard_normal((2, 64)), RNG.standard_normal((16, 64))]
    given = [jnp.asarray(a, jnp.float32) for a in given]
    truth = outcome(plain, *(a.astype(jnp.float64) for a in given))
    layer_norm = hg.rules.layer_norm

    def errors(function):
        found = functools.partial(outcome, function)
        found = (jax.jit(found) if jit else found)(*given)
        return [float(jnp.abs(one - two).max() / jnp.abs(two).max()) for one, two in zip(found, truth, strict=True)]

    assert max(errors(layer_norm)) < 4e-7
    Y, dX, dgamma, _ = errors(plain)
    assert min(Y, dgamma) > 1e-5
    assert dX > 1e-6


@every_centered_norm
@pytest.mark.parametrize("value", [0.0, 0.1, 1e3 + 0.1, 1e8, 1e15])
def test_no_variance(op, value):
    """All numbers alike in float32, representable or not: Y is beta, nothing is NaN."""
    x = jnp.full(X.shape, value, jnp.float32)
    Y, residuals = jax.jit(functools.partial(forward, op))(x, *(p.astype("float32") for p in (GAMMA, BETA)))
    np.testing.assert_allclose(Y, jnp.broadcast_to(BETA, Y.shape), atol=1e-5)
    dX, *_ = backward(op, residuals, DY.astype("float32"))
    assert jnp.isfinite(dX).all()
    assert (residuals.R > 0).all()


@every_norm
@pytest.mark.parametrize("eps", [0, -1e-5, float("nan"), float("inf"), "1e-5", None, True])
def test_eps_is_positive(op, eps):
    with pytest.raises(hg.InputError, match=rf"^{op}_forward: eps must be a positive number, got "):
        forward(op, X, eps=eps)


@every_norm
@pytest.mark.parametrize("residuals", ["mask", "", None, True])
def test_residuals_is_a_policy(op, residuals):
    with pytest.raises(hg.InputError, match=rf"^{op}_forward: residuals must be 'save' or 'recompute', got "):
        forward(op, X, residuals=residuals)


@every_norm
@pytest.mark.parametrize("wrong", [jnp.ones(5), jnp.ones(1), jnp.ones((1, 6)), 1.0, [1.0], jnp.ones(6, int)], ids=str)
def test_parameters_fit_the_features(op, wrong):
    """Nothing is broadcast in silence, and integers are no parameters."""
    names = ("gamma", "beta")[: len(parameters_of(op))]
    for i, name in enumerate(names):
        parameters = list(parameters_of(op))
        parameters[i] = wrong
        with pytest.raises(hg.InputError, match=rf"^{op}_forward: {name} must (have|be) .*, got "):
            forward(op, X, *parameters)


@every_norm
def test_a_vector_is_no_row(op):
    with pytest.raises(hg.InputError, match=rf"^{op}_forward: X must have shape \(batch, \.\.\., features\), got "):
        forward(op, X[0, 0])


def test_the_page_quotes_the_shared_steps_to_the_letter():
    page = (REPOSITORY / "docs/derivations/normalization/layer_norm.md").read_text()
    source = [line.strip() for line in inspect.getsource(_norms).splitlines()]
    quoted = [line.strip() for line in page.splitlines() if line.startswith("    ") and "keepdims" in line]
    assert len(quoted) == 4
    assert set(quoted) <= set(source)


@every_norm
@pytest.mark.parametrize("residuals", ["save", "recompute"])
def test_numpys_float64_where_float64_is_off(op, residuals):
    """JAX computes with it as float32, and nothing warns."""
    with jax.enable_x64(False):
        Y, kept = forward(op, np.asarray(X), *map(np.asarray, parameters_of(op)), residuals=residuals)
        assert Y.dtype == jnp.float32
        assert backward(op, kept, jnp.asarray(DY, jnp.float32))[0].dtype == jnp.float32


@every_norm
def test_autodiff_of_autodiff_is_finite(op):
    """Numbers are shrunk before they are squared; no derivative of the forward pass sees the small numbers' powers."""
    x = X.astype("float32")

    def scalar(x):
        return jnp.sum(jnp.sin(forward(op, x)[0]))

    _, second = jax.jit(lambda x: jax.jvp(jax.grad(scalar), (x,), (jnp.cos(x),)))(x)
    assert jnp.isfinite(second).all()
    assert jnp.abs(second).max() > 1e-3
