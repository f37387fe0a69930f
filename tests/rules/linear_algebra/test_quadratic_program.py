import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused
from scipy.optimize import LinearConstraint, minimize

import handgrad as hg
from handgrad import rules
from handgrad.cases._quadratic_programs import program
from handgrad.layers import QuadraticProgram, quadratic_program

solve = jax.jit(lambda *given: rules.quadratic_program(*given))


def test_published_examples():
    """Nocedal and Wright, Numerical Optimization (2006): 16.2, with its multipliers, and 16.4."""
    Q, q = np.array([[[6.0, 2, 1], [2, 5, 2], [1, 2, 4]]]), np.array([[-8.0, -3, -3]])
    A, b = np.array([[[1.0, 0, 1], [0, 1, 1]]]), np.array([[3.0, 0]])
    z, residuals = jax.jit(rules.quadratic_program.forward)(Q, q, A, b)
    np.testing.assert_allclose(z, [[2, -1, 1]], rtol=1e-12)
    np.testing.assert_allclose(residuals.x[:, 3:], [[-3, 2]], rtol=1e-12)  # theirs has Q z + q = Aᵀ λ
    G = np.array([[[-1.0, 2], [1, 2], [1, -2], [-1, 0], [0, -1]]])
    z = solve(np.array([2 * np.eye(2)]), np.array([[-2.0, -5]]), None, None, G, np.array([[2.0, 6, 2, 0, 0]]))
    np.testing.assert_allclose(z, [[1.4, 1.7]], rtol=1e-12)


def test_solutions_are_scipys_and_the_known_ones():
    """Of eight programs of ten unknowns; and λ > 0 exactly for the active ones."""
    given = program(8, n=10, equalities=2, active=3, inactive=6)(np.random.default_rng(1))
    Q, q, A, b, G, h = given
    z, residuals = jax.jit(rules.quadratic_program.forward)(*given)
    lam = residuals.x[:, 12:]
    assert np.all(lam[:, :3] > 0.4)
    np.testing.assert_allclose(lam[:, 3:], 0, atol=1e-14)
    np.testing.assert_allclose(np.einsum("bpn,bn->bp", G, z)[:, :3], h[:, :3], rtol=1e-12, atol=1e-12)
    for i in range(2):
        S = (Q[i] + Q[i].T) / 2
        constraints = [LinearConstraint(A[i], b[i], b[i]), LinearConstraint(G[i], -np.inf, h[i])]
        found = minimize(
            lambda z, S=S, i=i: z @ S @ z / 2 + q[i] @ z,
            np.zeros(10),
            jac=lambda z, S=S, i=i: S @ z + q[i],
            method="SLSQP",
            constraints=constraints,
            options={"ftol": 1e-13},
        )
        np.testing.assert_allclose(z[i], found.x, atol=1e-5)


def box(q, low, high):
    """min ½ ‖z‖² + qᵀz between two bounds, which is a clip."""
    n = q.shape[-1]
    G = np.broadcast_to(np.concatenate([np.eye(n), -np.eye(n)]), (len(q), 2 * n, n))
    h = np.concatenate([np.full(q.shape, high), np.full(q.shape, -low)], axis=1)
    return np.broadcast_to(np.eye(n), (len(q), n, n)), q, None, None, G, h


@jax.jit
def both_passes(*given):
    z, residuals = rules.quadratic_program.forward(*given)
    return z, rules.quadratic_program.backward(residuals, jnp.ones_like(z))


def test_small_multipliers_and_large_numbers():
    """A constraint of multiplier 10⁻⁹ is active; numbers of any size, in float32 too."""
    q = np.array([[-1 - 1e-9, -1 + 1e-9, 0.3], [5.0, -0.2, 0.9]])
    z, _ = both_passes(*box(q, -1.0, 1.0))
    np.testing.assert_array_equal(z, np.clip(-q, -1, 1))
    for size in (1e-30, 1e30):
        given = [None if a is None else np.asarray(a, np.float32) for a in box(q * size, -size, size)]
        np.testing.assert_allclose(both_passes(*given)[0], np.clip(-q, -1, 1) * size, rtol=1e-6)


def test_kinks_and_constraints_that_depend_on_each_other():
    """At a kink the value is right and the gradient is one of the two sides'. A constraint that is stated twice leaves
    the solution as it is, and shares its multiplier."""
    given = box(np.array([[-1.0, 0.5, -3.0], [0.1, 0.5, 3.0]]), -1.0, 1.0)
    z, (_, dq, _, _, _, dh) = both_passes(*given)
    np.testing.assert_allclose(z, [[1, -0.5, 1], [-0.1, -0.5, -1]], atol=1e-12)
    assert min(abs(dq[0, 0]), abs(dq[0, 0] + 1)) < 1e-9
    np.testing.assert_allclose(dq[:, 1:], [[-1, 0], [-1, 0]], atol=1e-9)
    np.testing.assert_allclose(dh[0, [2, 5]], [1, 0], atol=1e-9)
    *_, G, h = given
    twice = (*given[:4], np.concatenate([G, G], axis=1), np.concatenate([h, h], axis=1))
    z, (_, dq, _, _, _, dh) = both_passes(*twice)
    np.testing.assert_allclose(z, [[1, -0.5, 1], [-0.1, -0.5, -1]], atol=1e-12)
    np.testing.assert_allclose(dq[:, 1:], [[-1, 0], [-1, 0]], atol=1e-9)
    np.testing.assert_allclose(dh[0, [2, 8]], [0.5, 0.5], atol=1e-6)


def test_what_has_no_solution():
    """Constraints that exclude each other give NaN in that example alone."""
    *program, h = box(np.array([[0.3, 2.0, 0.0], [0.3, 2.0, 0.0]]), -1.0, 1.0)
    h[1, 0] = -2.0  # z ≤ −2 and z ≥ −1
    z, _ = both_passes(*program, h)
    np.testing.assert_allclose(z[0], [-0.3, -1, 0], rtol=1e-12, atol=1e-12)
    assert np.all(np.isnan(z[1]))


def test_the_layer():
    """Of a QuadraticProgram, whose cotangents are one; without constraints it is −Q⁻¹ q."""
    Q, q, A, b, *_ = map(jnp.asarray, program(2, active=1, inactive=1)(np.random.default_rng(2)))
    layer = quadratic_program()
    x = QuadraticProgram(Q, q)
    y, residuals = jax.jit(layer.forward)((), x)
    np.testing.assert_allclose(y, -np.linalg.solve((Q + Q.mT) / 2, q[..., None])[..., 0], rtol=1e-11)
    dx, dparams = jax.eval_shape(layer.backward, residuals, y)
    assert (dparams, jax.tree.structure(dx)) == ((), jax.tree.structure(x))
    both = jax.eval_shape(hg.value_and_grad(layer, hg.l2_loss(), argnums=1), (), x._replace(A=A, b=b), y)
    assert [d.shape for d in both[1][:4]] == [Q.shape, q.shape, A.shape, b.shape]


@pytest.mark.parametrize("names", ["A", "b", "G", "h"])
def test_refusals(names):
    Q, q, A, b, G, _ = given = program(3)(np.random.default_rng(0))
    forward = rules.quadratic_program.forward
    i = "QqAbGh".index(names)
    alone = [None if k == i else a for k, a in enumerate(given)]
    pair = "A and b" if names in "Ab" else "G and h"
    rows = {
        rf"quadratic_program_forward: {pair} must both be arrays or both None, got .* alone": lambda: forward(*alone)
    }
    if names == "A":
        rows |= {
            r"quadratic_program_forward: Q must be square, .*": lambda: forward(Q[:, :2], q),
            r"quadratic_program_forward: q must have shape \(3, 4\) to match Q \(3, 4, 4\), got .*": lambda: forward(
                Q, b
            ),
            r"quadratic_program_forward: A must have shape \(3, 1, 4\) .*": lambda: forward(Q, q, A[..., :2], b),
            r"quadratic_program_forward: h must have shape \(3, 3\) to match G .*": lambda: forward(Q, q, A, b, G, b),
            r"quadratic_program_forward: iterations must be a positive integer, got 0": lambda: forward(
                *given, iterations=0
            ),
            r"quadratic_program_forward: x must be a QuadraticProgram, got tuple": lambda: quadratic_program().forward(
                (), (Q, q)
            ),
        }
    assert_refused(rows)
