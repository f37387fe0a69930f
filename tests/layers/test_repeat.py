import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import noise

import handgrad as hg

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, DY = jnp.asarray(RNG.standard_normal((4, 3))), jnp.asarray(RNG.standard_normal((4, 3)))
N = 4


LAYERS = {
    "linear": hg.linear(3),
    "no-bias": hg.linear(3, bias=False),
    "chain": hg.chain(hg.linear(6), hg.tanh(), hg.linear(3), hg.relu()),
    "named": hg.chain(up=hg.linear(4), activation=hg.gelu(), down=hg.linear(3)),
    "residual": hg.residual(hg.chain(hg.linear(3), hg.silu())),
    "no-params": hg.chain(hg.sigmoid(), hg.softmax()),
    "identity": hg.identity(),
    "repeat": hg.repeat(hg.chain(hg.linear(3), hg.tanh()), 2),
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())


def drawn_params(layer):
    """Params of repeat(layer, N), none of them zero."""
    params = jax.eval_shape(hg.repeat(layer, N).init, KEY, X)
    return jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)), params)


def unstacked(params):
    return tuple(jax.tree.map(lambda p, i=i: p[i], params) for i in range(N))


@every_layer
def test_it_equals_the_unrolled_chain(layer):
    stacked, unrolled = hg.repeat(layer, N), hg.chain(*[layer] * N)
    params = drawn_params(layer)

    @jax.jit
    def both(params, dy):
        y, residuals = stacked.forward(params, X)
        dx, factors = stacked.backward(residuals, dy)
        expected, residuals = unrolled.forward(unstacked(params), X)
        expected_dx, expected_factors = unrolled.backward(residuals, dy)
        grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *hg.materialize(expected_factors))
        return (y, dx, hg.materialize(factors)), (expected, expected_dx, grads)

    found, expected = both(params, DY)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12 * float(jnp.abs(two).max()))


@every_layer
def test_it_equals_autodiff(layer):
    model = hg.repeat(layer, N)
    params = drawn_params(layer)
    found = jax.jit(hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1)))(params, X, DY)
    expected = jax.jit(jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1)))(params, X, DY)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12 * float(jnp.abs(two).max()))


def test_against_a_network_in_plain_jnp():
    model = hg.repeat(hg.residual(hg.chain(hg.linear(3), hg.tanh())), N)
    params = drawn_params(hg.residual(hg.chain(hg.linear(3), hg.tanh())))

    def plain(params, x):
        (W, b), _ = params
        for i in range(N):
            x = x + jnp.tanh(x @ W[i] + b[i][None])
        return ((x - DY) ** 2).sum() / 4

    found = jax.jit(hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1)))(params, X, DY)
    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(params, X)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12 * float(jnp.abs(two).max()))


def test_init_stacks_params_of_their_own():
    layer = hg.chain(hg.linear(3, init_b=jax.nn.initializers.normal()), hg.relu())
    (W, b), activation = hg.repeat(layer, N).init(KEY, X)
    assert (W.shape, b.shape, activation) == ((N, 3, 3), (N, 3), ())
    assert all((W[i] != W[j]).all() and (b[i] != b[j]).all() for i in range(N) for j in range(i))
    from_shape = hg.repeat(layer, N).init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert (from_shape[0].W == W).all()


def test_the_factors_are_stacked():
    model = hg.repeat(hg.linear(3), N)
    _, residuals = model.forward(model.init(KEY, X), X)
    _, factors = model.backward(residuals, DY)
    assert isinstance(factors.W, hg.Stacked)
    assert isinstance(factors.W.factor, hg.Outer)
    assert isinstance(factors.b.factor, hg.Total)
    assert (factors.W.shape, factors.W.batch) == ((N, 3, 3), 4)
    twice = hg.repeat(hg.repeat(hg.linear(3), 2), N)
    _, residuals = twice.forward(twice.init(KEY, X), X)
    assert twice.backward(residuals, DY)[1].W.shape == (N, 2, 3, 3)


def test_keys():
    """No key, no noise; the same key, the same noise; every layer draws its own."""
    model = hg.repeat(noise(), N)
    assert (model.forward((), X)[0] == X).all()
    y, residuals = model.forward((), X, KEY)
    drawn = residuals.kept
    assert (y == model.forward((), X, KEY)[0]).all()
    assert (y != model.forward((), X, jax.random.key(1))[0]).any()
    assert drawn.shape == (N, 4, 3)
    assert all((drawn[i] != drawn[j]).all() for i in range(N) for j in range(i))
    np.testing.assert_allclose(y, X * drawn.prod(0), rtol=1e-12)
    np.testing.assert_allclose(model.backward(residuals, DY)[0], DY * drawn.prod(0), rtol=1e-12)


def test_keys_under_repeat_reach_the_gradient():
    model = hg.repeat(hg.residual(hg.chain(hg.linear(3), noise(), hg.tanh())), N)
    params = model.init(KEY, X)
    arguments = (params, X, DY, None, jax.random.key(3))
    found = jax.jit(hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1)))(*arguments)
    expected = jax.jit(jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1)))(*arguments)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14)
    without_key = jax.jit(hg.objective(model, hg.l2_loss()))(params, X, DY)
    assert abs(found[0] - without_key) > 1e-3


@pytest.mark.parametrize("inner", [lambda layer: layer, lambda layer: hg.repeat(layer, 2)], ids=["once", "twice"])
def test_parameters_are_forwarded_never_copied(inner):
    """The very arrays: not one more of the stacked weights' shape leaves the scan, forwards or backwards."""
    model = hg.repeat(inner(hg.chain(hg.linear(3), hg.tanh())), N)
    params = model.init(KEY, X)
    W = params[0].W
    _, residuals = model.forward(params, X)
    assert any(array is W for array in jax.tree.leaves(residuals))

    def forward_and_backward(params, x, dy):
        y, residuals = model.forward(params, x)
        return y, model.backward(residuals, dy)

    scans = [
        equation
        for equation in jax.make_jaxpr(forward_and_backward)(params, X, DY).jaxpr.eqns
        if equation.primitive.name == "scan"
    ]
    assert len(scans) == 2
    outputs = [variable.aval.shape for scan in scans for variable in scan.outvars]
    assert outputs
    assert W.shape not in outputs
    assert W.shape in [variable.aval.shape for variable in scans[0].invars]


def test_an_output_that_is_kept_twice_is_stacked_once():
    """tanh keeps its output, the linear after it keeps the same array as its input."""
    model = hg.repeat(hg.chain(hg.linear(6), hg.tanh(), hg.linear(3)), N)
    _, residuals = model.forward(model.init(KEY, X), X)
    first, tanh, last = residuals.kept
    assert tanh.Y is last.X
    assert first.X is not tanh.Y


def test_memory_holds_no_copy_of_the_parameters():
    """Batch 1, so that the parameters are nearly all there is."""
    model = hg.repeat(hg.residual(hg.chain(hg.linear(512), hg.tanh())), 8)
    x = jax.ShapeDtypeStruct((1, 512), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    compiled = jax.jit(hg.value_and_grad(model, hg.l2_loss())).lower(params, x, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < sum(leaf.size * 4 for leaf in jax.tree.leaves(params))


def test_the_program_does_not_grow_with_n():
    def equations(n):
        model = hg.repeat(hg.residual(hg.chain(hg.linear(3), hg.tanh())), n)
        params = jax.eval_shape(model.init, KEY, X)
        return str(jax.make_jaxpr(hg.value_and_grad(model, hg.l2_loss()))(params, X, DY)).count("\n")

    assert equations(4) == equations(64)


def test_n_of_one():
    layer = hg.chain(hg.linear(3), hg.tanh())
    model = hg.repeat(layer, 1)
    params = model.init(KEY, X)
    (once,) = (jax.tree.map(lambda p: p[0], params),)
    np.testing.assert_allclose(model.forward(params, X)[0], layer.forward(once, X)[0], rtol=1e-15)


@pytest.mark.parametrize("n", [0, -1, 2.0, None, "2"])
def test_n_is_a_positive_integer(n):
    with pytest.raises(hg.InputError, match=r"^repeat: n must be a positive integer, got "):
        hg.repeat(hg.relu(), n)


def test_an_output_unlike_the_input():
    model = hg.repeat(hg.linear(4), 2)
    params = model.init(KEY, X)
    for forward in (model.forward, jax.jit(model.forward)):
        with pytest.raises(hg.InputError) as raised:
            forward(params, X)
        assert str(raised.value) == (
            "repeat: the layer's output must be like its input, float64 (4, 3), got float64 (4, 4)"
        )


@pytest.mark.parametrize(
    "params",
    [
        hg.LinearParams(jnp.ones((3, 3)), jnp.ones(3)),
        hg.LinearParams(jnp.ones((7, 3, 3)), jnp.ones((7, 3))),
        hg.LinearParams(jnp.ones((N, 3, 3)), jnp.ones(3)),
        hg.LinearParams(jnp.ones(()), jnp.ones(())),
        hg.LinearParams(1.0, 2.0),
        [1.0],
        None,
    ],
    ids=["one layer", "seven layers", "one bias", "scalars", "floats", "list", "None"],
)
def test_params_of_another_model(params):
    with pytest.raises(hg.InputError, match=r"^(repeat|linear): params must be .*, got "):
        hg.repeat(hg.linear(3), N).forward(params, X)


@pytest.mark.parametrize("another", ["one layer", "fewer layers", "another layer", "array", "None"])
def test_residuals_of_another_model(another):
    layer, x = hg.linear(3), X
    model = {"one layer": layer, "another layer": hg.repeat(hg.tanh(), N)}.get(another, hg.repeat(layer, 2))
    _, residuals = model.forward(model.init(KEY, x), x)
    residuals = {"array": x, "None": None}.get(another, residuals)
    with pytest.raises(hg.InputError, match=r"^(repeat|linear_backward): residuals must be .*, got "):
        hg.repeat(layer, N).backward(residuals, DY)


def test_a_layer_that_has_summed_its_gradient():
    """An array in a factor's place stays an array, one for each layer."""
    linear = hg.linear(3, bias=False)

    def backward(residuals, dy):
        dx, factors = linear.backward(residuals, dy)
        return dx, hg.materialize(factors)

    x = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    summed, kept = (hg.repeat(layer, 4) for layer in (hg.Layer(linear.init, linear.forward, backward), linear))
    params = kept.init(KEY, x)
    one, two = (hg.grad(model, hg.l2_loss())(params, x, x) for model in (summed, kept))
    np.testing.assert_allclose(one.W, two.W, rtol=1e-12)


@pytest.mark.parametrize("combinator", [hg.residual, lambda layer: hg.repeat(layer, 2), hg.chain])
def test_forgotten_parentheses(combinator):
    with pytest.raises(hg.InputError, match=r"expected a Layer, as `relu\(\)` makes one, got function"):
        combinator(hg.relu)
