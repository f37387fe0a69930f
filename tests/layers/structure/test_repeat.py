import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, noise

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
    rng = np.random.default_rng(1)
    params = jax.eval_shape(hg.repeat(layer, N).init, KEY, X)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params)


def unstacked(params):
    return tuple(jax.tree.map(lambda p, i=i: p[i], params) for i in range(N))


@every_layer
def test_it_equals_the_unrolled_chain_and_autodiff(layer):
    stacked, unrolled = hg.repeat(layer, N), hg.chain(*[layer] * N)

    @jax.jit
    def three_ways(params, x):
        gradients = [hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1)) for model in (stacked, unrolled)]
        by_hand = gradients[0](params, x, DY)
        value, (grads, dx) = gradients[1](unstacked(params), x, DY)
        chained = value, (jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads), dx)
        return by_hand, chained, jax.value_and_grad(hg.objective(stacked, hg.l2_loss()), argnums=(0, 1))(params, x, DY)

    by_hand, chained, autodiff = three_ways(drawn_params(layer), X)
    assert_same(by_hand, chained)
    assert_same(by_hand, autodiff)


def test_against_a_network_in_plain_jnp():
    layer = hg.residual(hg.chain(hg.linear(3), hg.tanh()))

    def plain(params, x):
        (W, b), _ = params
        for i in range(N):
            x = x + jnp.tanh(x @ W[i] + b[i][None])
        return ((x - DY) ** 2).sum() / 4

    @jax.jit
    def both(params, x):
        by_hand = hg.value_and_grad(hg.repeat(layer, N), hg.squared_error(), argnums=(0, 1))
        return by_hand(params, x, DY), jax.value_and_grad(plain, argnums=(0, 1))(params, x)

    assert_same(*both(drawn_params(layer), X))


def test_init_stacks_params_of_their_own():
    layer = hg.chain(hg.linear(3, init_b=jax.nn.initializers.normal()), hg.relu())
    (W, b), activation = hg.repeat(layer, N).init(KEY, X)
    W, b = np.asarray(W), np.asarray(b)
    assert (W.shape, b.shape, activation) == ((N, 3, 3), (N, 3), ())
    assert all((W[i] != W[j]).all() and (b[i] != b[j]).all() for i in range(N) for j in range(i))
    from_shape = hg.repeat(layer, N).init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert (np.asarray(from_shape[0].W) == W).all()


def test_the_factors_are_stacked():
    linear = hg.linear(3)

    def factors(model):
        def of(params):
            return model.backward(model.forward(params, X)[1], DY)[1]

        return jax.eval_shape(of, jax.eval_shape(model.init, KEY, X))

    found = factors(hg.repeat(linear, N))
    assert isinstance(found.W, hg.factors.Stacked)
    assert isinstance(found.W.factor, hg.factors.Outer)
    assert isinstance(found.b.factor, hg.factors.Total)
    assert (found.W.shape, found.W.batch) == ((N, 3, 3), 4)
    assert factors(hg.repeat(hg.repeat(linear, 2), N)).W.shape == (N, 2, 3, 3)


def test_keys():
    """No key, no noise; the same key, the same noise; every layer draws its own."""
    model = hg.repeat(noise(), N)
    assert (np.asarray(model.forward((), X)[0]) == X).all()

    @jax.jit
    def run(key):
        y, residuals = model.forward((), X, key)
        return y, residuals.kept, model.backward(residuals, DY)[0]

    y, drawn, dx = map(np.asarray, run(KEY))
    assert (y == run(KEY)[0]).all()
    assert (y != run(jax.random.key(1))[0]).any()
    assert drawn.shape == (N, 4, 3)
    assert all((drawn[i] != drawn[j]).all() for i in range(N) for j in range(i))
    np.testing.assert_allclose(y, X * drawn.prod(0), rtol=1e-12)
    np.testing.assert_allclose(dx, DY * drawn.prod(0), rtol=1e-12)


def test_keys_under_repeat_reach_the_gradient():
    layer = hg.residual(hg.chain(hg.linear(3), noise(), hg.tanh()))
    model = hg.repeat(layer, N)

    @jax.jit
    def both(params, x):
        arguments = params, x, DY, None, jax.random.key(3)
        objective = hg.objective(model, hg.l2_loss())
        by_hand = hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1))(*arguments)
        return by_hand, jax.value_and_grad(objective, argnums=(0, 1))(*arguments), objective(params, x, DY)

    found, expected, without_key = both(drawn_params(layer), X)
    assert_same(found, expected)
    assert abs(found[0] - without_key) > 1e-3


@pytest.mark.parametrize("inner", [lambda layer: layer, lambda layer: hg.repeat(layer, 2)], ids=["once", "twice"])
def test_parameters_are_forwarded_never_copied(inner):
    """The very arrays: not one more of the stacked weights' shape leaves the scan, forwards or backwards."""
    model = hg.repeat(inner(hg.chain(hg.linear(3), hg.tanh())), N)
    params = jax.eval_shape(model.init, KEY, X)
    W = params[0].W

    def kept(params):
        residuals = model.forward(params, X)[1]
        assert any(array is params[0].W for array in jax.tree.leaves(residuals))

    jax.eval_shape(kept, params)

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
    layer = hg.chain(hg.linear(6), hg.tanh(), hg.linear(3))
    model = hg.repeat(layer, N)
    _, residuals = model.forward(drawn_params(layer), X)
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
    once = jax.tree.map(lambda p: p[0], drawn_params(layer))
    params = jax.tree.map(lambda p: p[None], once)
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

    models = [hg.repeat(layer, N) for layer in (hg.Layer(linear.init, linear.forward, backward), linear)]
    one, two = jax.jit(lambda params: [hg.grad(m, hg.l2_loss())(params, X, DY) for m in models])(drawn_params(linear))
    np.testing.assert_allclose(one.W, two.W, rtol=1e-12)


@pytest.mark.parametrize("combinator", [hg.residual, lambda layer: hg.repeat(layer, 2), hg.chain])
def test_forgotten_parentheses(combinator):
    with pytest.raises(hg.InputError, match=r"expected a Layer, as `relu\(\)` makes one, got function"):
        combinator(hg.relu)


def test_a_stack_of_stacks_is_a_stack():
    """Every fold sees the same layers."""
    block, loss = hg.residual(hg.chain(hg.linear(4), hg.tanh())), hg.softmax_cross_entropy()
    flat, nested = hg.repeat(block, 4), hg.repeat(hg.repeat(block, 2), 2)
    rng = np.random.default_rng(0)
    x, target, P = rng.standard_normal((3, 5, 4)), rng.integers(0, 4, (3, 5)), rng.standard_normal((4, 4, 2))
    params = flat.init(jax.random.key(0, impl="unsafe_rbg"), x)

    def in_pairs(tree):
        return jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), tree)

    def folds(model, params, P):
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        sums = (hg.second_moment(factors), hg.kfac_factors(factors), hg.materialize(hg.project(factors, {"0.W": P})))
        return (hg.sq_norms(factors), hg.sq_norms(factors, unit="token"), hg.gram(factors)), sums, factors

    @jax.jit
    def both(params):
        return folds(flat, params, P), folds(nested, in_pairs(params), in_pairs(P))

    (of_examples, sums, factors), (of_examples_too, sums_too, factors_too) = both(params)
    assert_same(of_examples, of_examples_too, 1e-12)
    assert_same(in_pairs(sums), sums_too, 1e-12)
    assert [row[4:] for row in hg.explain(factors)] == [row[4:] for row in hg.explain(factors_too)]
