import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, both_passes, drawn, noise

import handgrad as hg

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, DY = jax.device_put(RNG.standard_normal((4, 3))), jax.device_put(RNG.standard_normal((4, 3)))
N, LOSS = 4, hg.l2_loss()
BLOCK = hg.chain(hg.linear(3), hg.tanh())
LAYERS = {
    "linear": hg.linear(3),
    "no-bias": hg.linear(3, bias=False),
    "chain": hg.chain(hg.linear(6), hg.tanh(), hg.linear(3), hg.relu()),
    "named": hg.chain(up=hg.linear(4), activation=hg.gelu(), down=hg.linear(3)),
    "residual": hg.residual(hg.chain(hg.linear(3), hg.silu())),
    "masks": hg.residual(hg.chain(hg.linear(3), hg.relu(), hg.residual(hg.leaky_relu()))),
    "no-params": hg.chain(hg.sigmoid(), hg.softmax()),
    "identity": hg.identity(),
    "repeat": hg.repeat(BLOCK, 2),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_it_equals_the_unrolled_chain_and_autodiff(layer):
    stacked, unrolled = hg.repeat(layer, N), hg.chain(*[layer] * N)

    @jax.jit
    def three_ways(params, x):
        one_by_one = tuple(jax.tree.map(lambda p, i=i: p[i], params) for i in range(N))
        value, (grads, dx) = hg.value_and_grad(unrolled, LOSS, argnums=(0, 1))(one_by_one, x, DY)
        chained = value, (jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads), dx)
        return *both_gradients(stacked, LOSS)(params, x, DY), chained

    by_hand, autodiff, chained = three_ways(drawn(stacked, X), X)
    assert_same(by_hand, chained)
    assert_same(by_hand, autodiff)


def test_against_a_network_in_plain_jnp():
    model = hg.repeat(hg.residual(BLOCK), N)

    def plain(params, x):
        (W, b), _ = params
        for i in range(N):
            x = x + jnp.tanh(x @ W[i] + b[i][None])
        return x

    assert_same(*both_passes(model, plain)(drawn(model, X), X, DY))


def test_init_stacks_params_of_their_own():
    layer = hg.chain(hg.linear(3, init_b=jax.nn.initializers.normal()), hg.relu())
    (W, b), activation = hg.repeat(layer, N).init(KEY, X)
    W, b = np.asarray(W), np.asarray(b)
    assert (W.shape, b.shape, activation) == ((N, 3, 3), (N, 3), ())
    assert all((W[i] != W[j]).all() and (b[i] != b[j]).all() for i in range(N) for j in range(i))
    from_shape = hg.repeat(layer, N).init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert (np.asarray(from_shape[0].W) == W).all()


def test_the_factors_are_stacked():
    def factors(model):
        params = jax.eval_shape(model.init, KEY, X)
        return jax.eval_shape(lambda params: model.backward(model.forward(params, X)[1], DY)[1], params)

    found = factors(hg.repeat(hg.linear(3), N))
    assert isinstance(found.W, hg.factors.Stacked)
    assert isinstance(found.W.factor, hg.factors.Outer)
    assert isinstance(found.b.factor, hg.factors.Total)
    assert (found.W.shape, found.W.batch) == ((N, 3, 3), 4)
    assert factors(hg.repeat(hg.repeat(hg.linear(3), 2), N)).W.shape == (N, 2, 3, 3)


def test_keys():
    """No key, no noise; the same key, the same noise; every layer draws its own."""
    model = hg.repeat(noise(), N)
    assert (np.asarray(model.forward((), X)[0]) == X).all()

    @jax.jit
    def run(key):
        y, residuals = model.forward((), X, key)
        return y, residuals.kept, model.backward(residuals, DY)[0]

    y, noises, dx = map(np.asarray, run(KEY))
    assert (y == run(KEY)[0]).all()
    assert (y != run(jax.random.key(1))[0]).any()
    assert noises.shape == (N, 4, 3)
    assert all((noises[i] != noises[j]).all() for i in range(N) for j in range(i))
    np.testing.assert_allclose(y, X * noises.prod(0), rtol=1e-12)
    np.testing.assert_allclose(dx, DY * noises.prod(0), rtol=1e-12)


@pytest.mark.parametrize("layer", [BLOCK, hg.repeat(BLOCK, 2)], ids=["once", "twice"])
def test_parameters_are_forwarded_never_copied(layer):
    """The very arrays: not one more of the stacked weights' shape leaves the scan, forwards or backwards."""
    model = hg.repeat(layer, N)
    params = jax.eval_shape(model.init, KEY, X)

    def forward_and_backward(params, x, dy):
        y, residuals = model.forward(params, x)
        assert any(array is params[0].W for array in jax.tree.leaves(residuals))
        return y, model.backward(residuals, dy)

    equations = jax.make_jaxpr(forward_and_backward)(params, X, DY).jaxpr.eqns
    forwards, backwards = (equation for equation in equations if equation.primitive.name == "scan")
    outputs = [variable.aval.shape for scan in (forwards, backwards) for variable in scan.outvars]
    assert outputs
    assert params[0].W.shape not in outputs
    assert params[0].W.shape in [variable.aval.shape for variable in forwards.invars]


def test_an_output_that_is_kept_twice_is_stacked_once():
    """tanh keeps its output, the linear after it keeps the same array as its input."""
    model = hg.repeat(hg.chain(hg.linear(6), hg.tanh(), hg.linear(3)), N)
    first, tanh, last = model.forward(drawn(model, X), X)[1].kept
    assert tanh.Y is last.X
    assert first.X is not tanh.Y


def test_a_rectifiers_output_is_stacked_where_another_layer_keeps_it():
    """And a mask elsewhere."""
    for activation in (hg.relu(), hg.leaky_relu()):
        model = hg.repeat(hg.residual(hg.chain(hg.linear(3), activation, hg.linear(3), activation)), N)
        _, residuals = jax.eval_shape(model.forward, jax.eval_shape(model.init, KEY, X), X)
        _, shared, _, alone = residuals.kept
        assert (shared.mask, shared.Y.dtype) == (None, X.dtype)
        assert (alone.Y, alone.mask.dtype) == (None, bool)


@pytest.mark.parametrize("skip", [False, True])
def test_memory_is_no_more_than_autodiffs_of_plain_jax(skip):
    """relu needs no mask beside the next layer's input, and keeps no more than a mask where that is another array;
    gradients are multiplied out in the loop, and the parameters, four times the difference, are not copied."""
    block, x = hg.chain(hg.linear(128), hg.relu()), jax.ShapeDtypeStruct((256, 128), np.float32)
    model = hg.repeat(hg.residual(block) if skip else block, 8)
    params = jax.eval_shape(model.init, KEY, x)

    def one(x, p):
        y = jax.nn.relu(x @ p.W + p.b[None])
        return (x + y if skip else y), None

    def plain(params, x, y):
        last, _ = jax.lax.scan(one, x, params[0])
        return jnp.mean(jnp.sum((last - y) ** 2, axis=1)) / 2

    ways = (jax.jit(jax.value_and_grad(plain)), jax.jit(hg.value_and_grad(model, LOSS)))
    theirs, ours = (way.lower(params, x, x).compile().memory_analysis().temp_size_in_bytes for way in ways)
    few = 1024  # loop counters
    assert ours <= theirs + few < ours + sum(leaf.size for leaf in jax.tree.leaves(params)) + few


def test_an_output_that_is_the_next_input_is_kept_once():
    model = hg.repeat(BLOCK, N)
    y, residuals = model.forward(drawn(model, X), X)
    linear, tanh = residuals.kept
    assert tanh.Y is linear.X
    assert residuals.y is y


def test_the_program_does_not_grow_with_n():
    def equations(n):
        model = hg.repeat(hg.residual(BLOCK), n)
        params = jax.eval_shape(model.init, KEY, X)
        return str(jax.make_jaxpr(hg.value_and_grad(model, LOSS))(params, X, DY)).count("\n")

    assert equations(4) == equations(64)


def test_n_of_one():
    model = hg.repeat(BLOCK, 1)
    assert_same(*both_gradients(model, LOSS)(drawn(model, X), X, DY))


def test_refusals():
    wide, three = hg.repeat(hg.linear(4), 2), hg.repeat(hg.linear(3), N)
    alike = r"repeat: the layer's output must be like its input, float64 \(4, 3\), got float64 \(4, 4\)"
    for forward in (wide.forward, jax.jit(wide.forward)):
        assert_refused({alike: lambda forward=forward: forward(drawn(wide, X), X)})
    for n in (0, -1, 2.0, None, "2"):
        assert_refused({f"repeat: n must be a positive integer, got {n!r}": lambda n=n: hg.repeat(hg.relu(), n)})
    for combinator in (hg.residual, lambda layer: hg.repeat(layer, 2)):
        sentence = r".*: expected a Layer, as `relu\(\)` makes one, got function"
        assert_refused({sentence: lambda combinator=combinator: combinator(hg.relu)})
    of_shapes = [hg.LinearParams(np.ones(W), np.ones(b)) for W, b in (((3, 3), 3), ((7, 3, 3), (7, 3)), ((N, 3, 3), 3))]
    for params in (*of_shapes, hg.LinearParams(np.ones(()), np.ones(())), hg.LinearParams(1.0, 2.0), [1.0], None):
        sentence = "(repeat|linear): params must be .*, got .*"
        assert_refused({sentence: lambda params=params: three.forward(params, X)})
    others = hg.linear(3), hg.repeat(hg.linear(3), 2), hg.repeat(hg.tanh(), N)
    for residuals in (*(model.forward(drawn(model, X), X)[1] for model in others), X, None):
        sentence = "(repeat|linear_backward): residuals must be .*, got .*"
        assert_refused({sentence: lambda residuals=residuals: three.backward(residuals, DY)})


def test_a_layer_that_has_summed_its_gradient():
    """An array in a factor's place stays an array, one for each layer."""
    linear = hg.linear(3, bias=False)

    def backward(residuals, dy):
        return hg.materialize(linear.backward(residuals, dy))

    models = [hg.repeat(layer, N) for layer in (hg.Layer(linear.init, linear.forward, backward), linear)]
    one, two = jax.jit(lambda params: [hg.grad(model, LOSS)(params, X, DY) for model in models])(drawn(models[1], X))
    np.testing.assert_allclose(one.W, two.W, rtol=1e-12)


def test_a_stack_of_stacks_is_a_stack():
    """Every fold sees the same layers."""
    block, loss = hg.residual(hg.chain(hg.linear(4), hg.tanh())), hg.softmax_cross_entropy()
    flat, nested = hg.repeat(block, 4), hg.repeat(hg.repeat(block, 2), 2)
    rng = np.random.default_rng(0)
    x, target, P = rng.standard_normal((3, 5, 4)), rng.integers(0, 4, (3, 5)), rng.standard_normal((4, 4, 2))

    def in_pairs(tree):
        return jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), tree)

    def folds(model, params, P):
        _, factors = hg.value_and_factors(model, loss)(params, x, target)
        sums = (hg.second_moment(factors), hg.kfac_factors(factors), hg.materialize(hg.project(factors, {"0.W": P})))
        return (hg.sq_norms(factors), hg.sq_norms(factors, unit="token"), hg.gram(factors)), sums, factors

    both = jax.jit(lambda params: (folds(flat, params, P), folds(nested, in_pairs(params), in_pairs(P))))
    (of_examples, sums, factors), (of_examples_too, sums_too, factors_too) = both(drawn(flat, x))
    assert_same(of_examples, of_examples_too)
    assert_same(in_pairs(sums), sums_too)
    assert [row[4:] for row in hg.costs(factors)] == [row[4:] for row in hg.costs(factors_too)]
