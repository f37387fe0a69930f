import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, drawn

import handgrad as hg
from handgrad.layers import batch_norm, fixed_point
from handgrad.rules import pull_back_fixed_point

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, DY = jax.device_put(RNG.standard_normal((5, 3))), jax.device_put(RNG.standard_normal((5, 4)))
F = hg.chain(hg.branches(hg.linear(4), hg.linear(4)), hg.added(), hg.tanh())
EXACT = {"tol": 1e-14, "iterations": 100}


def start(x):
    return jnp.zeros((x.shape[0], 4), x.dtype)


def unrolled(params, x):
    """150 steps in plain JAX."""
    (of_z, of_x), _, _ = params

    def step(z, _):
        return jnp.tanh(z @ of_z.W + of_z.b[None] + x @ of_x.W + of_x.b[None]), None

    return jax.lax.scan(step, jnp.zeros((len(x), 4)), length=150)[0]


def test_gradients_are_those_of_the_unrolled_iteration():
    """Of each example too, for every parameter: by plain iteration and by Anderson's, which takes far fewer steps."""
    layers = {
        "plain": fixed_point(F, start=start, history=0, **EXACT),
        "anderson": fixed_point(F, start=start, **EXACT),
    }

    @jax.jit
    def run(params):
        found = {}
        for name, layer in layers.items():
            y, residuals = layer.forward(params, X)
            dx, factors = layer.backward(residuals, DY)
            assert isinstance(factors[0][0].W, hg.factors.Outer)
            assert factors[0][0].W.A.shape == (5, 4)  # one row of an example: f stands in the network once
            norms = hg.sq_norms(factors)
            found[name] = (y, dx, hg.materialize(factors), hg.per_example_grads(factors), norms), residuals.convergence
        y, vjp = jax.vjp(unrolled, params, X)
        dparams, dx = vjp(DY)
        each = jax.vmap(lambda x, dy: jax.vjp(lambda p: unrolled(p, x[None]), params)[1](dy[None])[0])(X, DY)
        norms = sum(jnp.sum(jnp.square(g.reshape(5, -1)), axis=1) for g in jax.tree.leaves(each))
        return found, (y, dx, dparams, each, norms)

    found, expected = run(drawn(fixed_point(F, start=start), X, 0.3))
    steps = {}
    for name, (values, convergence) in found.items():
        assert_same(values, expected, 1e-12)
        assert np.all(convergence.converged)
        steps[name] = np.asarray(convergence.iterations)
    assert steps["anderson"].max() <= 0.6 * steps["plain"].max()
    assert len(set(steps["plain"])) > 1  # each example stops by itself


def test_an_example_that_does_not_converge():
    """It is reported, and NaN where that is wanted; the others are what they are without it."""
    x = jnp.asarray([[0.3], [0.9], [3.0]])  # z = x z + 1 diverges for the last, and is slow for the second
    f = hg.Layer(
        lambda key, x: (),
        lambda params, both, key=None: (both[1] * both[0] + 1, both),
        lambda both, dy: ((both[1] * dy, both[0] * dy), ()),
    )
    layer = fixed_point(f, tol=1e-12, iterations=400, history=0, unconverged="nan")

    @jax.jit
    def run(x):
        y, residuals = layer.forward((), x)
        return y, layer.backward(residuals, jnp.ones_like(y))[0], residuals.convergence

    y, dx, convergence = run(x)
    np.testing.assert_array_equal(convergence.converged, [True, True, False])
    assert convergence.iterations[0] < 50 < convergence.iterations[1] < 400 == convergence.iterations[2]
    np.testing.assert_allclose(y[:2, 0], [1 / 0.7, 10], rtol=1e-10)
    np.testing.assert_allclose(dx[:2, 0], [1 / 0.7**2, 100], rtol=1e-9)
    assert np.isnan(y[2, 0])
    assert np.isnan(dx[2, 0])


def test_the_backward_pass_is_linear():
    """Cotangents of any size, and none: the tolerance is relative. And its own convergence is told."""
    A = jnp.asarray(0.4 * RNG.standard_normal((4, 4)))
    dZ = jnp.asarray([[1e-30], [0.0], [1e30]]) * DY[:1]

    def pull_back(U):
        return U @ A.T, U

    U, convergence = jax.jit(lambda dZ: pull_back_fixed_point(pull_back, dZ, tol=1e-13, iterations=60))(dZ)
    expected = np.linalg.solve(np.eye(4) - np.asarray(A), np.asarray(dZ).T).T
    np.testing.assert_allclose(U[0], expected[0], rtol=1e-11)
    np.testing.assert_allclose(U[2], expected[2], rtol=1e-11)
    assert not np.any(U[1])
    assert np.all(convergence.converged)
    assert max(convergence.iterations) <= 9  # GMRES of four unknowns needs 4; roundings cost some more


def test_a_loop_that_autodiff_can_differentiate():
    """And the checker, with that as its reference, for f with noise: the same noise in every evaluation."""
    layer = fixed_point(hg.chain(F, hg.dropout(0.2)), tol=None, iterations=60, start=start)
    key = jax.random.key(3, impl="unsafe_rbg")

    @jax.jit
    def run(params):
        y, residuals = layer.forward(params, X, key)
        dx, factors = layer.backward(residuals, DY)
        expected, vjp = jax.vjp(lambda params, x: layer.forward(params, x, key)[0], params, X)
        return (y, (hg.materialize(factors), dx)), (expected, vjp(DY))

    assert_same(*run(drawn(layer, X, 0.3)), 1e-11)


def test_a_coupled_f():
    """All examples stop together, and the sum over them is right: their fixed point is one of the whole batch."""
    projection = hg.linear(4, bias=False)
    f = hg.chain(hg.branches(projection, projection), hg.added(), batch_norm(), hg.tanh())
    layer = fixed_point(f, start=start, tol=1e-14, iterations=150)
    assert layer.couples is not None

    def plain(params, x):
        (of_z, of_x), _, norm, _ = params

        def step(z, _):
            h = z @ of_z.W + x @ of_x.W
            h = (h - h.mean(0, keepdims=True)) / jnp.sqrt(h.var(0, keepdims=True) + 1e-5)
            return jnp.tanh(h * norm.gamma[None] + norm.beta[None]), None

        return jax.lax.scan(step, jnp.zeros((5, 4)), length=150)[0]

    @jax.jit
    def run(params):
        y, residuals = layer.forward(params, X)
        dx, factors = layer.backward(residuals, DY)
        assert isinstance(factors[0][0].W, hg.factors.Coupled)
        expected, vjp = jax.vjp(plain, params, X)
        return (y, (hg.materialize(factors), dx)), (expected, vjp(DY)), residuals.convergence

    params = drawn(layer, X, 0.2)
    found, expected, convergence = run(params)
    assert np.all(convergence.converged)
    assert_same(found, expected, 1e-11)


def test_memory_does_not_grow_with_the_iterations():
    f = hg.chain(hg.branches(hg.linear(64), hg.linear(64)), hg.added(), hg.tanh())
    x = jax.ShapeDtypeStruct((256, 64), np.float32)

    def temporary(iterations):
        layer = fixed_point(f, iterations=iterations, history=2, tol=None)
        params = jax.eval_shape(layer.init, KEY, x)
        compiled = jax.jit(hg.value_and_grad(layer, hg.l2_loss())).lower(params, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(50) <= temporary(5) + 1024


def test_what_cannot_be_solved_for():
    layer, params = fixed_point(F), drawn(fixed_point(F, start=start), X)
    like = "the layer's output must be like its input"
    assert_refused(
        {
            "fixed_point: expected a Layer, .*": lambda: fixed_point(hg.linear),
            "fixed_point: tol must be a positive number, got 0": lambda: fixed_point(F, tol=0),
            "fixed_point: tol must be a positive number, got -1.0": lambda: fixed_point(F, backward_tol=-1.0),
            "fixed_point: iterations must be a positive integer, got 0": lambda: fixed_point(F, iterations=0),
            "fixed_point: history must be a positive integer, got -1": lambda: fixed_point(F, history=-1),
            "fixed_point: unconverged must be 'keep' or 'nan', got None": lambda: fixed_point(F, unconverged=None),
            rf"fixed_point: {like}, float64 \(5, 3\), got float64 \(5, 4\)": lambda: jax.eval_shape(
                layer.forward, drawn(layer, X), X
            ),
            r"fixed_point: x must be an array, got tuple": lambda: layer.forward(params, (X, X)),
            "fixed_point: residuals must be FixedPointResiduals, got tuple": lambda: layer.backward((), X),
        }
    )


@pytest.mark.parametrize("history", [0, 3])
def test_reduced_precision(history):
    """In bfloat16 too the iteration ends, and gradients are near."""
    layer = fixed_point(F, start=start, tol=1e-2, history=history)
    x, dy = X.astype(jnp.bfloat16), DY.astype(jnp.bfloat16)
    params = drawn(layer, x, 0.3)

    @jax.jit
    def run(params, x, dy):
        y, residuals = layer.forward(params, x)
        dx, factors = layer.backward(residuals, dy)
        return (y, dx, hg.materialize(factors)), residuals.convergence

    found, convergence = run(params, x, dy)
    assert {a.dtype for a in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    assert np.all(convergence.converged)
    exact, _ = run(*jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, dy)))
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        two = np.asarray(two)
        np.testing.assert_allclose(np.asarray(one, np.float64), two, rtol=0, atol=0.05 * np.abs(two).max())
