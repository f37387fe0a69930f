"""Layer norm, and what holds for every norm: invariances, policies, factors, dtypes, refusals, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import optimized_jit
from precision import Subject, autodiff, by_hand, by_torch, over_the_whole_range
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((3, 4, 6)) + 1, RNG.standard_normal((3, 4, 6))
GAMMA, BETA = RNG.standard_normal((2, 6))
RULES = {
    "layer_norm": rules.layer_norm,
    "rms_norm": rules.rms_norm,
    "group_norm": rules.group_norm.with_options(groups=2),
    "instance_norm": rules.instance_norm,
    "batch_norm": rules.batch_norm,
}
AXES = {"layer_norm": 2, "rms_norm": 2, "group_norm": (1, 3), "instance_norm": 1, "batch_norm": (0, 1)}
every_norm = pytest.mark.parametrize("op", RULES)


def parameters_of(op):
    return (GAMMA,) if op == "rms_norm" else (GAMMA, BETA)


def in_sets(op, X):
    """X with a group's features on an axis of their own."""
    return np.asarray(X).reshape(3, 4, 2, 3) if op == "group_norm" else np.asarray(X)


def run(rule, X, DY, *parameters):
    Y, residuals = rule.forward(X, *parameters)
    return Y, residuals, rule.backward(residuals, DY)


@every_norm
def test_invariances_factors_and_second_derivatives(op):
    """One program: without parameters and nearly without eps, with parameters, and autodiff of autodiff in float32."""
    rule, parameters = RULES[op], parameters_of(op)

    def scalar(x):
        return jnp.sum(jnp.sin(rule.forward(x)[0]))

    @optimized_jit
    def everything(X, DY, parameters, x):
        plain, _, none = run(rule, X, DY)
        assert all(d is None for d in none[1:])
        normalized, *_ = run(rule.with_options(eps=1e-14), X, DY)
        _, _, (dX, dgamma, *dbeta) = run(rule.with_options(eps=1e-14), X, DY, *parameters)
        assert isinstance(dgamma, hg.factors.Hadamard)
        assert all(isinstance(d, hg.factors.Total) for d in dbeta)
        _, _, (_, dgamma, *dbeta) = run(rule, X, DY, *parameters)
        second = jax.jvp(jax.grad(scalar), (x,), (jnp.cos(x),))[1]
        return plain, normalized, dX, dgamma.per_example(), [d.per_example() for d in dbeta], second

    Y, A, dX, dgamma, dbeta, second = everything(X, DY, parameters, X.astype(np.float32))
    A, dX_sets, X_sets = (in_sets(op, a) for a in (A, dX, X))
    if op == "rms_norm":
        np.testing.assert_allclose(np.mean(A**2, AXES[op]), 1, rtol=1e-10)
    else:
        np.testing.assert_allclose(A.mean(AXES[op]), 0, atol=1e-13)
        np.testing.assert_allclose(A.var(AXES[op]), 1, rtol=1e-10)
        np.testing.assert_allclose(dX_sets.sum(AXES[op]), 0, atol=1e-11)  # moving the whole set changes nothing
    np.testing.assert_allclose((dX_sets * X_sets).sum(AXES[op]), 0, atol=1e-11)  # nor does stretching it, but for eps
    np.testing.assert_allclose(dgamma, (np.asarray(Y) * DY).sum(1), rtol=1e-12, atol=1e-14)
    for d in dbeta:
        np.testing.assert_allclose(d, DY.sum(1), rtol=1e-12, atol=1e-14)
    # Numbers are shrunk before they are squared; no derivative of the forward pass sees the small numbers' powers.
    assert np.isfinite(second).all()
    assert np.abs(second).max() > 1e-3


@every_norm
def test_both_policies_give_the_same_numbers(op):
    """To the bit, in float32 and bfloat16; "save" keeps X̂ in X's dtype, "recompute" the input itself."""

    def both(given):
        found = {}
        for name, (x, dy, *parameters) in given.items():
            saved, kept = (run(RULES[op].with_options(residuals=r), x, dy, *parameters) for r in ("save", "recompute"))
            assert saved[1].X is kept[1].A is None
            assert saved[1].A.dtype == name
            assert kept[1].X is x
            statistics = [getattr(kept[1], field) for field in ("mean", "variance", "R") if hasattr(kept[1], field)]
            assert saved[0].dtype == name
            assert all(a.dtype == jnp.float32 for a in statistics)
            found[name] = [(Y, hg.materialize(cotangents)) for Y, _, cotangents in (saved, kept)]
        return found

    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    given = {name: [a.astype(dtype) for a in (X, DY, *parameters_of(op))] for name, dtype in dtypes.items()}
    for one, two in optimized_jit(both)(given).values():
        jax.tree.map(np.testing.assert_array_equal, one, two)


@every_norm
def test_parameters_of_a_larger_dtype(op):
    """Y in the promoted dtype, every cotangent in its argument's; statistics of float16 in float32."""

    def outcome(X, DY, *parameters):
        Y, residuals, cotangents = run(RULES[op], X, DY, *parameters)
        with pytest.raises(hg.InputError, match=rf"^{op}_backward: dY must be the cotangent of Y, float32 "):
            RULES[op].backward(residuals, DY.astype("bfloat16"))
        return Y, residuals.R, hg.materialize(cotangents)

    wide = [a.astype(np.float32) for a in (DY, *parameters_of(op))]
    Y, R, (dX, *dparameters) = jax.eval_shape(outcome, X.astype(jnp.bfloat16), *wide)
    assert (Y.dtype, R.dtype, dX.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    assert all(d.dtype == jnp.float32 for d in dparameters)
    assert jax.eval_shape(RULES[op].forward, X.astype(np.float16))[1].R.dtype == jnp.float32


@every_norm
def test_numpys_float64_where_float64_is_off(op):
    """JAX computes with it as float32, and nothing warns."""
    with jax.enable_x64(False):
        for policy in ("save", "recompute"):
            rule, dY = RULES[op].with_options(residuals=policy), DY.astype(np.float32)
            Y, _, (dX, *_) = jax.eval_shape(lambda rule=rule, dY=dY: run(rule, X, dY, *parameters_of(op)))
            assert Y.dtype == dX.dtype == jnp.float32


@pytest.mark.parametrize("op", [op for op in RULES if op != "rms_norm"])
def test_no_variance(op):
    """All numbers alike in float32, representable or not: Y is beta, nothing is NaN."""
    program = optimized_jit(functools.partial(run, RULES[op]))
    for value in (0.0, 0.1, 1e3 + 0.1, 1e8, 1e15):
        given = (np.full(X.shape, value), DY, GAMMA, BETA)
        Y, residuals, (dX, *_) = program(*(a.astype(np.float32) for a in given))
        np.testing.assert_allclose(Y, np.broadcast_to(BETA, Y.shape), atol=1e-5)
        assert np.isfinite(dX).all()
        assert (np.asarray(residuals.R) > 0).all()


@every_norm
def test_refusals(op):
    """Nothing is broadcast in silence, and integers are no parameters."""
    refuse = functools.partial(refuses, RULES[op])
    for eps in (0, -1e-5, float("nan"), float("inf"), "1e-5", None, True):
        refuse("eps must be a positive number, got …", X, eps=eps)
    for residuals in ("mask", "", None, True):
        refuse(f"residuals must be 'save' or 'recompute', got {residuals!r}", X, residuals=residuals)
    for wrong in (np.ones(5), np.ones(1), np.ones((1, 6)), 1.0, [1.0], np.ones(6, int)):
        for name in ("gamma", "beta")[: len(parameters_of(op))]:
            verb = "have" if isinstance(wrong, np.ndarray) else "be"
            refuse(f"{name} must {verb} …, got …", X, **{name: wrong})
    refuse("X must have shape (batch, …, features), got …", X[0, 0])


def plain(X, gamma, beta):
    """Layer norm by the textbook: two passes, uncorrected."""
    mean = jnp.mean(X, -1, keepdims=True)
    variance = jnp.mean((X - mean) ** 2, -1, keepdims=True)
    return (X - mean) / jnp.sqrt(variance + 1e-5) * jnp.broadcast_to(gamma, X.shape) + jnp.broadcast_to(beta, X.shape)


def test_a_large_mean_costs_no_digits():
    """1000 + normal in float32, where plain two passes lose three digits: see the derivation."""
    rng = np.random.default_rng(0)
    given = 1e3 + rng.standard_normal((16, 64)), *rng.standard_normal((2, 64)), rng.standard_normal((16, 64))
    narrow, wide = ([a.astype(np.float32).astype(dtype) for a in given] for dtype in (np.float32, np.float64))
    truth = autodiff(plain)(*wide)
    ours, (Y, dX, dgamma, _) = (
        [np.abs(np.asarray(a) - b).max() / np.abs(b).max() for a, b in zip(function(*narrow), truth, strict=True)]
        for function in (autodiff(rules.layer_norm), autodiff(plain))
    )
    assert max(ours) < 4e-7
    assert min(Y, dgamma) > 1e-5
    assert dX > 1e-6


# Precision: a few ulps, or twice the best of jax.grad's and PyTorch's, for rows of any size and any offset.

WIDTH = 8
TRAINING = {"running_mean": None, "running_var": None, "training": True}
# Neither X̂ nor dX has a small element, which would be rounded to the size of the others.
PATTERN = np.array([1.0, -2.0, 3.0, -1.5, 2.5, -0.7, 1.8, -2.6])
COTANGENT = np.array([1.0, 0.5, -0.3, -1.7, -0.6, -1.1, 1.9, -1.5])


def rows(dtype):
    """Rows about PATTERN times each power of two up to 10³⁰ (docs/precision.md says why), and with offsets."""
    info, rng = jnp.finfo(dtype), np.random.default_rng(0)
    sizes = np.exp2(np.arange(info.minexp + 12, min(info.maxexp - 3, 101), dtype=np.float64))
    offsets = np.concatenate([np.zeros(len(sizes)), 10.0 ** np.arange(-3, 7), -(10.0 ** np.arange(-3, 7))])
    sizes = np.concatenate([sizes, np.ones(20)])[:, None]
    return (sizes * PATTERN * rng.uniform(0.9, 1.1, (len(sizes), WIDTH)) + offsets[:, None]).astype(dtype)


def standardized(axes, eps=1e-5):
    """X̂ as a JAX user would write it."""

    return lambda X: (X - jnp.mean(X, axes, keepdims=True)) / jnp.sqrt(jnp.var(X, axes, keepdims=True) + eps)


def subject(op, primal, in_torch, shape=lambda X: X, **options):
    """The rows in the shape that makes each of them one set of the norm."""

    def inputs(dtype):
        X = rows(dtype)
        dY = (COTANGENT * np.random.default_rng(1).uniform(0.9, 1.1, X.shape)).astype(dtype)
        return shape(X), shape(dY)

    rivals = {"jax.grad": autodiff(primal), **in_torch}
    # An element is rounded to the size of its set's largest.
    return Subject(op, "rows", ("Y", "dX"), inputs, autodiff(primal), None, rivals, options, {"Y": 8, "dX": 32})


def root_mean_square(X):
    return X / jnp.sqrt(jnp.mean(X**2, -1, keepdims=True) + 1e-6)


def in_channels(name, *options):
    """A norm of torch's, whose channels are at axis 1."""
    return lambda t, x: getattr(t.nn.functional, name)(x.transpose(1, 2), *options).transpose(1, 2)


def in_pairs(X):
    return X.reshape(len(X), WIDTH // 2, 2)


SUBJECTS = [
    subject("layer_norm", standardized(-1), by_torch("layer_norm", normalized_shape=(WIDTH,))),
    subject("rms_norm", root_mean_square, by_torch("rms_norm", normalized_shape=(WIDTH,), eps=1e-6)),
    subject("group_norm", standardized((1, 2)), by_torch(in_channels("group_norm", 1)), in_pairs, groups=1),
    subject("instance_norm", standardized(1), by_torch(in_channels("instance_norm")), lambda X: X[..., None]),
    subject("batch_norm", standardized(0), by_torch("batch_norm", **TRAINING), np.transpose),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_large_rows(subject):
    """Where a square overflows in X's dtype: no rival sets the bar, and dX is of the size of 1 / X."""
    # The tenth from the end is of size 1, with an offset of 1.
    row = np.take(subject.inputs(np.float64)[0], [-10], axis=1 if subject.op == "batch_norm" else 0)
    given = {}
    for dtype, size in ((np.float32, 1e30), (np.float16, 2e4)):
        x = np.asarray(size * row, dtype)
        assert np.isfinite(x).all()
        assert np.abs(x).max() > size / 4
        given[np.dtype(dtype).name] = x, np.resize(COTANGENT, x.shape).astype(dtype)
    run = by_hand(subject.op, **subject.options)
    outcome = optimized_jit(lambda given: {name: run(*arrays) for name, arrays in given.items()})(given)
    for name, found in outcome.items():
        truth = subject.truth(*(np.asarray(a, np.float64) for a in given[name]))
        for mine, exact in zip(found, truth, strict=True):
            bar = 8 * float(np.finfo(name).eps) * np.abs(exact).max()
            np.testing.assert_allclose(np.asarray(mine, np.float64), exact, rtol=0, atol=max(bar, 1e-7))
