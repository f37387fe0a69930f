import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, drawn

import handgrad as hg
from handgrad.layers import batch_norm, root

RNG = np.random.default_rng(0)
X, DY = (jax.device_put(RNG.standard_normal((5, 3))) for _ in range(2))
CUBE = hg.Layer(lambda key, x: (), lambda params, x, key=None: (x**3, x), lambda x, dy: (3 * x**2 * dy, ()))


def pair():
    """z -> (z, z), so that a chain may use it twice."""
    return hg.Layer(lambda key, x: (), lambda params, x, key=None: ((x, x), ()), lambda _, dy: (dy[0] + dy[1], ()))


# z + z³ + z A + b + x B + c = 0: one root where A is small.
OF_Z = hg.residual(hg.chain(pair(), hg.branches(hg.linear(3), CUBE), hg.added()))
G = hg.chain(hg.branches(OF_Z, hg.linear(3)), hg.added())


def newton(params, x):
    """In plain JAX, from jax.jacfwd of the equation, and differentiated through all its steps."""
    (_, ((A, b), _), _), (B, c) = params[0]

    def equation(z, x):
        return z + z**3 + z @ A + b + x @ B + c

    def of_one(x):
        z = jnp.zeros(3)
        for _ in range(12):
            z = z - jnp.linalg.solve(jax.jacfwd(equation)(z, x), equation(z, x))
        return z

    return jax.vmap(of_one)(x)


@pytest.mark.slow
def test_gradients_are_those_of_newtons_steps():
    """Of each example, for every parameter; and by autodiff of the layer's own steps."""
    layer, loop = root(G, tol=1e-8, unconverged="nan"), root(G, tol=None, iterations=9)

    @jax.jit
    def run(params):
        y, residuals = layer.forward(params, X)
        dx, factors = layer.backward(residuals, DY)
        expected, vjp = jax.vjp(newton, params, X)
        own, own_vjp = jax.vjp(lambda *given: loop.forward(*given)[0], params, X)
        each = jax.vmap(lambda x, dy: jax.vjp(lambda p: newton(p, x[None]), params)[1](dy[None])[0])(X, DY)
        norms = sum(jnp.sum(jnp.square(g.reshape(5, -1)), axis=1) for g in jax.tree.leaves(each))
        found = (y, (hg.materialize(factors), dx)), hg.per_example_grads(factors), hg.sq_norms(factors)
        return found, ((expected, vjp(DY)), each, norms), (own, own_vjp(DY)), residuals.convergence

    found, expected, own, convergence = run(drawn(layer, X, 0.3))
    assert_same(found, expected, 1e-11)
    assert_same(own, expected[0], 1e-11)
    assert np.all(convergence.converged)
    assert 3 <= min(convergence.iterations) <= max(convergence.iterations) <= 9


def test_square_roots():
    """z² = x from another first z; where there is no root the example alone says so."""
    g = hg.Layer(
        lambda key, x: (),
        lambda params, both, key=None: (both[0] ** 2 - both[1], both),
        lambda both, dy: ((2 * both[0] * dy, -dy), ()),
    )
    layer = root(g, start=lambda x: 1 + jnp.abs(x), unconverged="nan")

    @jax.jit
    def run(x):
        y, residuals = layer.forward((), x)
        return y, layer.backward(residuals, jnp.ones_like(y))[0], residuals.convergence.converged

    y, dx, converged = run(jnp.asarray([[4.0], [1e-4], [-1.0]]))
    np.testing.assert_array_equal(converged, [True, True, False])
    np.testing.assert_allclose(y[:2, 0], [2, 0.01], rtol=1e-8)
    np.testing.assert_allclose(dx[:2, 0], [0.25, 50], rtol=1e-8)
    assert np.isnan(y[2, 0])


def test_refusals():
    coupled = hg.chain(hg.branches(hg.chain(hg.linear(3), batch_norm()), hg.linear(3)), hg.added())
    layer, params = root(G), drawn(root(G), X)
    assert_refused(
        {
            "root: expected a Layer, .*": lambda: root(hg.linear),
            "root: g must treat each example by itself, got one that says .*batch_norm couples.*": lambda: root(
                coupled
            ),
            "root: tol must be a positive number, got 0.0": lambda: root(G, tol=0.0),
            r"root: start\(x\) must be an array, got NoneType": lambda: root(G, start=lambda x: None).forward(
                params, X
            ),
            "root: residuals must be RootResiduals, got tuple": lambda: layer.backward((), X),
        }
    )
