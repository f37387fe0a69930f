"""Programs: compiled once per shape, each in its own dtype, the caller's world left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck.subject.arguments import ProblemError
from handgrad.crosscheck.subject.compiling import precise
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.programs import Programs

X, W = np.random.default_rng(0).standard_normal((4, 3)), np.random.default_rng(1).standard_normal((3, 2))
COTANGENT = np.random.default_rng(2).standard_normal((4, 2))


def programs(forward=None, backward=None, reference=None, dtype=np.float64, args=(X, W)):
    return Programs(
        from_rule(
            None,
            forward or (lambda X, W: (jnp.sin(X) @ W, (X, W))),
            backward or (lambda r, dY: (jnp.cos(r[0]) * (dY @ r[1].T), jnp.sin(r[0]).T @ dY)),
            args,
            reference,
            dtype,
        )
    )


def test_each_in_its_own_dtype():
    p = programs(dtype=np.float32)
    leaves, dYs = p.problem.leaves, [COTANGENT.astype(np.float32)]
    for way, dtype in ((p.by_hand, "f4"), (p.by_hand_eager, "f4"), (p.by_autodiff, "f4"), (p.in_float64, "f8")):
        Ys, cotangents = way(leaves, dYs)
        assert [a.dtype for a in (*Ys, *cotangents)] == [np.dtype(dtype)] * 3
        assert all(type(a) is np.ndarray for a in (*Ys, *cotangents))
        np.testing.assert_allclose(cotangents[0], np.cos(leaves[0]) * (dYs[0] @ leaves[1].T), rtol=2e-5)


def test_the_truth_is_of_the_rounded_inputs():
    p = programs(dtype=jnp.bfloat16)
    (Y,), _ = p.in_float64(p.problem.leaves, [COTANGENT.astype(jnp.bfloat16)])
    rounded = [a.astype(jnp.bfloat16).astype(np.float64) for a in (X, W)]
    np.testing.assert_allclose(Y, np.sin(rounded[0]) @ rounded[1], rtol=1e-14)


def test_compiled_once_for_each_shape():
    traced = []

    def forward(X, W):
        traced.append(X.shape)
        return X @ W, (X, W)

    p = programs(forward, lambda r, dY: (dY @ r[1].T, r[0].T @ dY))
    traced.clear()
    for k in range(3):
        p.by_hand([X + k, W], [COTANGENT])
        p.by_autodiff([X + k, W], [COTANGENT])
    assert traced == 2 * [(4, 3)], "by hand and by autodiff, in one program"
    p.by_hand([X[:2], W], [COTANGENT[:2]])
    assert traced[2:] == 2 * [(2, 3)]


def test_the_empty_batch_is_not_compiled():
    traced = []

    def backward(r, dY):
        traced.append(dY.shape)
        return dY @ r[1].T, r[0].T @ dY

    mine, theirs = programs(lambda X, W: (X @ W, (X, W)), backward).shapes([X[:0], W], [COTANGENT[:0]])
    assert traced == [(0, 2)]
    assert [a.shape for a in mine[1]] == [a.shape for a in theirs[1]] == [(0, 3), (3, 2)]


def test_outputs_by_name():
    p = programs(lambda X, W: ({"b": X @ W, "a": (jnp.sum(X), jnp.argmax(X))}, (X, W)), lambda r, d: (r[0], r[1]), None)
    assert p.output_names == ["a.0", "b"]
    assert [(y.shape, y.dtype) for y in p.outputs] == [((), np.float64), ((4, 2), np.float64)]
    assert programs().output_names == ["Y"]


def test_what_needs_numbers_runs_step_by_step():
    def backward(r, dY):
        if float(dY.sum()) > 1e9:
            return r
        return jnp.cos(r[0]) * (dY @ r[1].T), jnp.sin(r[0]).T @ dY

    p = programs(backward=backward)
    _, (dX, _) = p.by_hand([X, W], [COTANGENT])
    assert not p.compiles
    np.testing.assert_allclose(dX, np.cos(X) * (COTANGENT @ W.T), rtol=1e-14)


def test_matrix_products_in_full_precision():
    with jax.default_matmul_precision("bfloat16"):
        jaxpr = programs(dtype=np.float32).jaxpr([X.astype("f4"), W.astype("f4")], [COTANGENT.astype("f4")])
    precisions = [str(e.params["precision"]) for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert precisions
    assert all("HIGHEST" in precision for precision in precisions)


@pytest.mark.parametrize("x64", [True, False])
def test_precise_comes_back(x64):
    with jax.enable_x64(not x64), jax.default_matmul_precision("float32"):

        def fails():
            with precise(x64):
                assert jnp.zeros(1, float).dtype == (np.float64 if x64 else np.float32)
                assert jax.config.jax_default_matmul_precision == "highest"
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fails()
        assert jnp.zeros(1, float).dtype == (np.float32 if x64 else np.float64)
        assert jax.config.jax_default_matmul_precision == "float32"


def test_tangent_is_the_jacobians_product():
    p = programs()
    V = [np.ones_like(X), np.zeros_like(W)]
    np.testing.assert_allclose(p.tangent([X, W], V)[0], np.cos(X) @ W, rtol=1e-14)


def test_a_function_that_raises_is_the_cause():
    def broken(r, dY):
        raise KeyError("no such\nthing")

    p = programs(backward=broken)
    with pytest.raises(ProblemError, match=r"^broken raised KeyError while being checked: ") as caught:
        p.by_hand([X, W], [COTANGENT])
    assert isinstance(caught.value.__cause__, KeyError)
