import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, drawn
from scipy.integrate import solve_ivp

import handgrad as hg
from handgrad.layers import batch_norm, ode
from handgrad.layers.structure._steps import grid_of, segment_of
from handgrad.layers.sums import sums_only
from handgrad.rules import RUNGE_KUTTA, runge_kutta_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = jax.device_put(RNG.standard_normal((5, 2)))
TIMES = (0.0, 0.7, 1.0)
F = hg.chain(hg.branches(hg.linear(4), hg.linear(4)), hg.added(), hg.tanh(), hg.linear(2))
RK4 = {"times": TIMES, "steps": 4, "returns": "all", "time": True}
DOPRI5 = {"times": (1.0, 0.4), "steps": 2, "method": "dopri5", "time": True}


def field(params, t, z):
    (of_t, of_z), _, _, out = params
    t = jnp.full((*z.shape[:-1], 1), t)
    return jnp.tanh(t @ of_t.W + of_t.b[None] + z @ of_z.W + of_z.b[None]) @ out.W + out.b[None]


def rk4(f, z, times, steps):
    """As books write it."""
    values = [z]
    for start, end in itertools.pairwise(times):
        h = (end - start) / steps
        for t in start + h * np.arange(steps):
            k1 = f(t, z)
            k2 = f(t + h / 2, z + h / 2 * k1)
            k3 = f(t + h / 2, z + h / 2 * k2)
            k4 = f(t + h, z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        values.append(z)
    return jnp.stack(values, axis=1)


def dopri5(f, z, times, steps):
    start, end = times
    table = [(*row, *(0.0,) * (6 - len(row))) for row in RUNGE_KUTTA["dopri5"].a]
    h = (end - start) / steps
    for t in start + h * np.arange(steps):
        slopes = []
        for row, c in zip(table, (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1), strict=True):
            at = z + h * sum((w * k for w, k in zip(row, slopes, strict=False)), 0 * z)
            slopes.append(f(t + c * h, at))
        weights = (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
        z = z + h * sum(w * k for w, k in zip(weights, slopes, strict=True))
    return z


@pytest.mark.parametrize(("options", "plain"), [(RK4, rk4), (DOPRI5, dopri5)], ids=["rk4", "dopri5"])
def test_gradients_are_those_of_the_steps(options, plain):
    """To rounding, summed as they arise or as factors; and of each example, for every parameter."""
    layer = ode(F, **options)
    given = options["times"], options["steps"]
    dy = jnp.asarray(RNG.standard_normal(jax.eval_shape(lambda p: layer.forward(p, X)[0], drawn(layer, X)).shape))

    @jax.jit
    def run(params):
        y, residuals = layer.forward(params, X)
        dx, factors = layer.backward(residuals, dy)
        _, sums = layer.backward(sums_only(residuals), dy)
        assert not any(map(hg.factors.is_factor, jax.tree.leaves(sums, is_leaf=hg.factors.is_factor)))
        assert isinstance(factors[3].W, hg.factors.Outer)

        def reference(params, x):
            return plain(lambda t, z: field(params, t, z), x, *given)

        expected, vjp = jax.vjp(reference, params, X)
        each = jax.vmap(lambda x, dy: jax.vjp(lambda p: reference(p, x[None]), params)[1](dy[None])[0])(X, dy)
        norms = sum(jnp.sum(jnp.square(g.reshape(5, -1)), axis=1) for g in jax.tree.leaves(each))
        dparams, expected_dx = vjp(dy)
        found = y, dx, hg.materialize(factors), sums, hg.per_example_grads(factors), hg.sq_norms(factors)
        return found, (expected, expected_dx, dparams, dparams, each, norms)

    assert_same(*run(drawn(layer, X, 0.5)), 1e-12)


def test_values_are_scipys():
    """At given times, in both directions, by solve_ivp's adaptive method of order 8."""
    layers = ode(F, **RK4 | {"steps": 30, "method": "dopri5"}), ode(F, **DOPRI5 | {"steps": 30})
    params = drawn(layers[0], X, 0.5)
    found = jax.jit(lambda params: [layer.forward(params, X)[0] for layer in layers])(params)
    (of_t, of_z), _, _, out = jax.tree.map(np.asarray, params)

    def f(t, z):
        z = z.reshape(5, 2)
        return (np.tanh(t * of_t.W + of_t.b + z @ of_z.W + of_z.b) @ out.W + out.b).reshape(-1)

    tight = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
    ahead = solve_ivp(f, (0, 1), np.ravel(X), t_eval=TIMES, **tight).y.T.reshape(3, 5, 2)
    back = solve_ivp(f, (1.0, 0.4), np.ravel(X), **tight).y[:, -1].reshape(5, 2)
    np.testing.assert_allclose(found[0], np.moveaxis(ahead, 0, 1), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[1], back, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_adjoint_has_the_order_of_its_method():
    """Half the step, a sixteenth of the error, against the exact gradient of many steps; values are the same."""
    options = RK4 | {"gradient": "adjoint"}
    layers = [ode(F, **options | {"steps": steps}) for steps in (3, 6)]
    fine, same = ode(F, **RK4 | {"steps": 60}), ode(F, **RK4 | {"steps": 6})
    dy = jnp.asarray(RNG.standard_normal((5, 3, 2)))

    def gradients(layer, params):
        y, residuals = layer.forward(params, X)
        dx, factors = layer.backward(residuals, dy)
        _, sums = layer.backward(sums_only(residuals), dy)
        return y, (dx, hg.materialize(factors)), (dx, sums), hg.per_example_grads(factors)[3].W

    run = jax.jit(lambda params: [gradients(layer, params) for layer in (*layers, fine, same)])
    coarse, half, exact, of_steps = run(drawn(fine, X, 0.5))
    assert_same(half[0], of_steps[0], 1e-14)
    assert_same(half[1], half[2], 1e-13)

    def error(found):
        pairs = zip(jax.tree.leaves(found[1]), jax.tree.leaves(exact[1]), strict=True)
        return max(float(np.abs(one - two).max()) for one, two in pairs)

    assert error(half) < 1e-4
    assert 8 < error(coarse) / error(half) < 40
    np.testing.assert_allclose(half[3], exact[3], rtol=0, atol=1e-4)


def test_the_methods_have_their_orders():
    """dz/dt = z and dz/dt = 5 t⁴ over one step, in NumPy; and the conditions on the tables."""
    for method in RUNGE_KUTTA.values():
        rows = [sum(row) for row in method.a]
        np.testing.assert_allclose(rows, method.c, atol=1e-14)
        np.testing.assert_allclose(sum(method.b), 1)
        errors = [abs(runge_kutta_step(lambda t, z: z, method, 0.0, h, 1.0) - np.exp(h)) for h in (0.1, 0.05)]
        assert 0.8 < np.log2(errors[0] / errors[1]) - method.order < 1.2
        if method.order == 5:
            np.testing.assert_allclose(runge_kutta_step(lambda t, z: 5 * t**4, method, 0.0, 1.0, 0.0), 1)


def test_segments_hold_every_step():
    for steps in range(1, 130):
        segment = segment_of(steps)
        t, h = grid_of((0.0, 1.0, 3.0), steps, segment)
        assert t.shape == h.shape == (2 * -(-steps // segment), segment)
        real = h > 0
        np.testing.assert_allclose(t[real], [*np.arange(steps) / steps, *(1 + 2 * np.arange(steps) / steps)])
        np.testing.assert_allclose(h.reshape(2, -1).sum(1), [1, 2])
        assert np.size(h) <= 2 * (1.1 * steps + 1)
        assert max(segment, len(h) // 2) <= 2 * np.sqrt(steps) + 2


CONVOLVED = hg.chain(hg.convolution(2, 3), hg.tanh())
DEEP = hg.chain(
    hg.repeat(hg.residual(hg.chain(hg.linear(2), hg.tanh())), 2),
    hg.shared(hg.chain(hg.linear(2), hg.tanh(), hg.linear(2)), {"2": "0"}),
    hg.layers.rms_norm(),
)


@pytest.mark.parametrize(
    ("f", "x"),
    [(DEEP, X), (CONVOLVED, jnp.asarray(RNG.standard_normal((3, 4, 4, 2))))],
    ids=["repeat, shared and a scale", "convolution"],
)
def test_every_factor_over_all_steps(f, x):
    """Stacks, tied weights, scales and kernels: sums and per-example gradients are those of autodiff."""
    layer, loss = ode(f, steps=11, method="euler"), hg.l2_loss()  # in segments, one of which is filled up
    y = jnp.cos(x)

    @jax.jit
    def run(params):
        _, factors = hg.value_and_factors(layer, loss)(params, x, y)
        jacobian = jax.jacrev(lambda p: loss.forward(layer.forward(p, x)[0], y)[0])(params)
        norms = sum(jnp.sum(jnp.square(j.reshape(len(x), -1)), axis=1) for j in jax.tree.leaves(jacobian))
        summed = hg.grad(layer, loss)(params, x, y, jnp.ones(len(x)))
        found = (
            hg.per_example_grads(factors),
            hg.sq_norms(factors),
            hg.materialize(factors, jnp.arange(1.0, 1 + len(x))),
        )
        weighted = jax.tree.map(lambda j: jnp.einsum("b,b...->...", jnp.arange(1.0, 1 + len(x)), j), jacobian)
        return (*found, summed), (jacobian, norms, weighted, jax.tree.map(lambda j: j.sum(0), jacobian))

    assert_same(*run(drawn(layer, x, 0.5)), 1e-12)


def test_a_coupled_f():
    layer = ode(hg.chain(hg.linear(2), batch_norm()), steps=1, method="euler")
    dparams = jax.eval_shape(lambda p: layer.backward(layer.forward(p, X)[1], X)[1], drawn(layer, X))
    assert all(isinstance(d, hg.factors.Coupled) for d in (dparams[0].W, dparams[1].gamma))
    assert layer.couples.startswith("in layer f.1: batch_norm couples")


def test_memory_of_many_steps():
    """A gradient of 16 times the steps takes 4 times the checkpoints; by the adjoint nothing more."""
    f = hg.chain(hg.linear(64), hg.tanh(), hg.linear(64))
    x = jax.ShapeDtypeStruct((256, 64), np.float32)
    params = jax.eval_shape(f.init, KEY, x)

    def temporary(steps, gradient):
        layer = ode(f, steps=steps, method="midpoint", gradient=gradient)
        compiled = jax.jit(hg.value_and_grad(layer, hg.l2_loss())).lower(params, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (256 * 64 * 4)

    few, many = (temporary(steps, "checkpoints") for steps in (16, 256))
    assert many - few <= 2 * (16 - 4) + 2
    assert abs(temporary(256, "adjoint") - temporary(16, "adjoint")) < 1


def test_in_bfloat16():
    """States are added up in float32, and f runs in the dtype of x."""
    layer = ode(hg.chain(hg.linear(2), hg.tanh()), steps=4)
    x = X.astype(jnp.bfloat16)

    def run(params):
        y, residuals = layer.forward(params, x)
        return y, residuals.starts, layer.backward(sums_only(residuals), y)

    y, starts, (dx, dparams) = jax.eval_shape(run, drawn(layer, x))
    assert {a.dtype for a in jax.tree.leaves((y, dx, dparams))} == {jnp.dtype(jnp.bfloat16)}
    assert starts.dtype == jnp.float32


def test_refusals():
    layer = ode(F, time=True)
    params = drawn(layer, X)
    times = r"times must be at least two numbers, increasing or decreasing, got"
    assert_refused(
        {
            rf"ode: {times} \(1.0,\)": lambda: ode(F, times=(1.0,)),
            rf"ode: {times} \(0, 1, 1\)": lambda: ode(F, times=(0, 1, 1)),
            rf"ode: {times} 1.0": lambda: ode(F, times=1.0),
            "ode: steps must be a positive integer, got 0": lambda: ode(F, steps=0),
            "ode: method must be 'euler', .* or 'dopri5', got 'heun'": lambda: ode(F, method="heun"),
            "ode: returns must be 'last' or 'all', got None": lambda: ode(F, returns=None),
            "ode: gradient must be 'checkpoints' or 'adjoint', got 'exact'": lambda: ode(F, gradient="exact"),
            r"ode: x must have shape \(batch, ..., features\), got float64 \(5,\)": lambda: layer.init(KEY, X[:, 0]),
            r"ode: the layer's output must be like its input, .*": lambda: jax.eval_shape(
                ode(hg.linear(3)).forward, drawn(hg.linear(3), X), X
            ),
            r"ode: dy must be the cotangent of y, float64 \(5, 2\), got .*": lambda: jax.eval_shape(
                lambda p: layer.backward(layer.forward(p, X)[1], X[:1]), params
            ),
            "ode: residuals must be OdeResiduals, got tuple": lambda: layer.backward((), X),
        }
    )
