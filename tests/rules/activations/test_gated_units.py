"""Gated units: policies, dtypes, precision, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from precision import Subject, against, autodiff, by_torch, cotangents, over_the_whole_range, tanh_form, unflushed
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
U, V, DY = RNG.standard_normal((3, 4, 2, 5)) * 2
UNITS = {
    "glu": (rules.glu, lambda u: 1 / (1 + jnp.exp(-u))),
    "swiglu": (rules.swiglu, jax.nn.silu),
    "geglu": (rules.geglu, lambda u: jax.nn.gelu(u, approximate=False)),
    "geglu-tanh": (rules.geglu.with_options(approximate=True), jax.nn.gelu),
}
every_unit = pytest.mark.parametrize(("rule", "gate"), UNITS.values(), ids=UNITS.keys())


def run(rule, policy, U, V, DY):
    Y, residuals = rule.with_options(residuals=policy).forward(U, V)
    return Y, residuals, rule.backward(residuals, DY)


@every_unit
def test_policies_autodiff_and_open_and_shut_gates(rule, gate):
    """Both keep two arrays of U's size and give the same numbers. At u = ±1e4 in float32 σ is 1 or 0, silu and gelu
    are u or 0; nothing overflows."""
    u, v, dy = np.array([[[1e4, -1e4]], [[3.0, 3.0]], [[1.0, 1.0]]], np.float32)

    @optimized_jit
    def outcome(U, V, DY, u, v, dy):
        found = {}
        for policy in ("recompute", "save"):
            Y, residuals, cotangents = run(rule, policy, U, V, DY)
            kept = jax.tree.leaves(residuals)
            assert [a.shape for a in kept] == [U.shape] * 2
            assert (kept[0] is U) == (policy == "recompute")
            found[policy] = Y, *cotangents
        expected, pullback = jax.vjp(lambda u, v: gate(u) * v, U, V)
        Y, _, (dU, dV) = run(rule, "recompute", u, v, dy)
        return found, (expected, *pullback(DY)), (Y, dV, dU)

    found, expected, of_large = outcome(U, V, DY, u, v, dy)
    assert all((np.asarray(one) == two).all() for one, two in zip(*found.values(), strict=True))
    assert_same(found["save"], expected)
    opened = 1 if rule is rules.glu else 1e4
    assert [a.tolist() for a in of_large] == [[[3 * opened, 0]], [[opened, 0]], [[0 if opened == 1 else 3, 0]]]


@every_unit
def test_mixed_dtypes(rule, gate):
    for policy in ("recompute", "save"):
        for dtypes in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32), (jnp.float64, jnp.float32)):
            wide = jnp.promote_types(*dtypes)
            given = U.astype(dtypes[0]), V.astype(dtypes[1]), DY.astype(wide)
            Y, _, (dU, dV) = jax.eval_shape(functools.partial(run, rule, policy), *given)
            assert (Y.dtype, dU.dtype, dV.dtype) == (wide, *dtypes)


@every_unit
def test_bad_input(rule, gate):
    refuses(rule, "V must have shape (4, 2, 5) like U, got float64 (4, 2, 1)", U, V[:, :, :1])
    refuses(rule, "V must have a floating-point dtype, got int64 (4, 2, 5)", U, V.astype(int))
    refuses(rule, "V must be an array, got NoneType", U, None)
    refuses(rule, "residuals must be 'recompute' or 'save', got 'keep'", U, V, residuals="keep")


def gated(op, gate, of_torch, truth=None, name="grid", **options):
    """Y = g(U) ∘ V: many U against a few V."""

    def inputs(dtype):
        U, V = against(unflushed(op, name, dtype, 1001), [1e-3, -0.7, 1.0], dtype=dtype)
        return U, V, cotangents(U.shape, dtype)

    rivals = {"jax.grad": autodiff(lambda U, V: gate(U) * V), **by_torch(lambda t, U, V: of_torch(t, U) * V)}
    exact = autodiff(lambda U, V: (truth or gate)(U) * V)
    return Subject(op, name, ("Y", "dU", "dV"), inputs, exact, rivals=rivals, options=options)


def gelu_in_torch(torch, u):
    return torch.nn.functional.gelu(u, approximate="tanh")


GELU = UNITS["geglu"][1]
SUBJECTS = [
    gated("glu", jax.nn.sigmoid, lambda t, u: t.sigmoid(u), lambda u: jnp.exp(-jnp.logaddexp(-u, 0.0))),
    gated("swiglu", jax.nn.silu, lambda t, u: t.nn.functional.silu(u)),
    gated("geglu", GELU, lambda t, u: t.nn.functional.gelu(u)),
    gated("geglu", jax.nn.gelu, gelu_in_torch, tanh_form, name="tanh-form", approximate=True),
]
test_over_the_whole_range = over_the_whole_range(SUBJECTS)
