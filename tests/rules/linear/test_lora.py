"""lora_linear: what forms no product, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad.rules import linear_forward, lora_linear, lora_linear_forward

RNG = np.random.default_rng(0)
X, W, A, B, b = (RNG.standard_normal(s) for s in [(4, 3, 6), (6, 5), (6, 2), (2, 5), (5,)])
DY = RNG.standard_normal((4, 3, 5))


def run(X, W, A, B, b, DY, **options):
    rule = lora_linear.with_options(**options)
    Y, residuals = rule.forward(X, W, A, B, b)
    return Y, rule.backward(residuals, DY)


def test_no_product_of_ws_shape_is_formed():
    """Neither W + s A B in the forward pass, nor dW in the backward pass, even where dA and dB are multiplied out."""

    def adapters(X, W, A, B, DY):
        _, (dX, _, dA, dB, _) = run(X, W, A, B, None, DY, scale=0.5)
        return dX, dA.sum(), dB.sum()

    equations = jax.make_jaxpr(adapters)(X, W, A, B, DY).jaxpr.eqns
    shapes = [equation.outvars[0].aval.shape for equation in equations if equation.primitive.name == "dot_general"]
    assert {(6, 2), (2, 5)} <= set(shapes)
    assert (6, 5) not in shapes


def test_policies_a_product_of_rank_zero_and_an_adapter_of_zero():
    @jax.jit
    def outcomes(X, W, A, B, b, DY):
        policies = [hg.materialize(run(X, W, A, B, b, DY, scale=0.5, residuals=r)[1]) for r in ("save", "recompute")]
        empty, cotangents = run(X, W, jnp.zeros((6, 0)), jnp.zeros((0, 5)), b, DY, scale=3.0)
        zero, _ = run(X, W, A, jnp.zeros((2, 5)), b, DY, scale=3.0)
        return policies, linear_forward(X, W, b)[0], zero, empty, hg.materialize(cotangents)

    policies, expected, zero, empty, (_, _, dA, dB, _) = outcomes(X, W, A, B, b, DY)
    assert_same(*policies, 0)
    assert_same((zero, empty), (expected, expected))
    assert (dA.shape, dB.shape) == ((6, 0), (0, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W": W[0]}, "W must have shape (n_in, n_out), got float64 (5,)"),
        ({"A": A[0]}, "A must have shape (n_in, r), got float64 (2,)"),
        ({"B": B[0]}, "B must have shape (r, n_out), got float64 (5,)"),
        ({"X": X[..., :5]}, "X must have shape (4, 3, 6) to meet W (6, 5), got float64 (4, 3, 5)"),
        ({"A": A[:5]}, "A must have shape (6, 2) to meet W (6, 5), got float64 (5, 2)"),
        ({"B": B[:1]}, "B must have shape (2, 5) to meet A (6, 2) and W (6, 5), got float64 (1, 5)"),
        ({"B": B[:, :4]}, "B must have shape (2, 5) to meet A (6, 2) and W (6, 5), got float64 (2, 4)"),
        ({"b": b[:4]}, "b must have shape (5,) to meet W (6, 5), got float64 (4,)"),
        ({"b": b.astype(int)}, "b must have a floating-point dtype, got int64 (5,)"),
        ({"A": A.astype(int)}, "A must have a floating-point dtype, got int64 (6, 2)"),
        ({"scale": "1"}, "scale must be a number, got '1'"),
        ({"scale": None}, "scale must be a number, got None"),
        ({"residuals": "mask"}, "residuals must be 'save' or 'recompute', got 'mask'"),
    ],
)
def test_refusals(changes, message):
    arguments = {"X": X, "W": W, "A": A, "B": B, "b": b, "scale": 0.5} | changes
    with pytest.raises(hg.InputError) as raised:
        lora_linear_forward(**arguments)
    assert str(raised.value) == f"lora_linear_forward: {message}"
