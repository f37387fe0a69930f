"""Gated units: policies, dtypes, equal forms, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
U, V, DY = jnp.asarray(RNG.standard_normal((3, 4, 2, 5)) * 2)
UNITS = {
    "glu": (rules.glu_forward, rules.glu_backward, {}, lambda u: 1 / (1 + jnp.exp(-u))),
    "swiglu": (rules.swiglu_forward, rules.swiglu_backward, {}, jax.nn.silu),
    "geglu": (rules.geglu_forward, rules.geglu_backward, {}, lambda u: jax.nn.gelu(u, approximate=False)),
    "geglu-tanh": (rules.geglu_forward, rules.geglu_backward, {"approximate": True}, jax.nn.gelu),
}
every_unit = pytest.mark.parametrize(("forward", "backward", "options", "gate"), UNITS.values(), ids=UNITS.keys())


@every_unit
def test_policies_keep_two_arrays_and_give_the_same(forward, backward, options, gate):
    found = []
    for policy in ("recompute", "save"):
        Y, residuals = forward(U, V, residuals=policy, **options)
        kept = jax.tree.leaves(residuals)
        assert [a.shape for a in kept] == [U.shape] * 2
        assert (kept[0] is U) == (policy == "recompute")
        found.append((Y, *backward(residuals, DY, **options)))
    for one, two in zip(*found, strict=True):
        assert (one == two).all()


@every_unit
def test_against_autodiff(forward, backward, options, gate):
    expected, pullback = jax.vjp(lambda u, v: gate(u) * v, U, V)
    Y, residuals = forward(U, V, **options)
    assert_same((Y, *backward(residuals, DY, **options)), (expected, *pullback(DY)))


@every_unit
@pytest.mark.parametrize("policy", ["recompute", "save"])
@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32"), ("float64", "float32")])
def test_mixed_dtypes(forward, backward, options, gate, policy, dtypes):
    u, v = U.astype(dtypes[0]), V.astype(dtypes[1])
    Y, residuals = forward(u, v, residuals=policy, **options)
    assert Y.dtype == jnp.promote_types(*dtypes)
    dU, dV = backward(residuals, DY.astype(Y.dtype), **options)
    assert (dU.dtype, dV.dtype) == dtypes


@every_unit
def test_the_gate_wide_open_and_shut(forward, backward, options, gate):
    """u = ±1e4 in float32: σ is 1 or 0, silu and gelu are u or 0; nothing overflows."""
    u, v = jnp.asarray([[1e4, -1e4]], jnp.float32), jnp.asarray([[3.0, 3.0]], jnp.float32)
    Y, residuals = forward(u, v, **options)
    dU, dV = backward(residuals, jnp.ones_like(u), **options)
    opened = 1 if forward is rules.glu_forward else 1e4
    assert Y.tolist() == [[3 * opened, 0]]
    assert dV.tolist() == [[opened, 0]]
    assert dU.tolist() == [[0 if opened == 1 else 3, 0]]


@every_unit
def test_bad_input(forward, backward, options, gate):
    name = forward.__name__
    for wrong, sentence in (
        ((U, V[:, :, :1]), r"V must have shape \(4, 2, 5\) like U, got float64 \(4, 2, 1\)$"),
        ((U, V.astype(int)), r"V must have a floating-point dtype, got int64 \(4, 2, 5\)$"),
        ((U, None), "V must be an array, got NoneType$"),
    ):
        with pytest.raises(hg.InputError, match=f"^{name}: {sentence}"):
            forward(*wrong, **options)
    with pytest.raises(hg.InputError, match=f"^{name}: residuals must be 'recompute' or 'save', got 'keep'$"):
        forward(U, V, residuals="keep", **options)
