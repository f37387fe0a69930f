"""The model level: what a JAX user calls, against what JAX would have done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, noise

import handgrad as hg

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, N_IN, N_OUT = 6, 3, 4, 3
X = jnp.asarray(RNG.standard_normal((BATCH, TOKENS, N_IN)))
LABELS = jnp.asarray(RNG.integers(0, N_OUT, (BATCH, TOKENS)))
WEIGHTS = jnp.asarray(RNG.uniform(-1, 2, BATCH))

MODEL = hg.chain(
    body=hg.chain(hg.linear(5), hg.tanh()),
    blocks=hg.repeat(hg.residual(hg.chain(hg.linear(5, bias=False), hg.gelu())), 2),
    head=hg.linear(N_OUT),
)
LOSS = hg.softmax_cross_entropy()
PARAMS = jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)) / 2, jax.eval_shape(MODEL.init, KEY, X))

VALUE_AND_GRAD = jax.jit(hg.value_and_grad(MODEL, LOSS))

SMALL = hg.chain(hg.linear(5), hg.tanh(), hg.linear(N_OUT))
SMALL_BY_AUTODIFF = jax.jit(jax.value_and_grad(hg.objective(SMALL, LOSS), argnums=(0, 1)))


@jax.jit
def plain_losses(params, x):
    """MODEL and LOSS again, in plain jax.numpy."""
    (W, b), _ = params["body"]
    x = jnp.tanh(x @ W + jnp.broadcast_to(b, (5,))[None, None])
    for i in range(2):
        x = x + jax.nn.gelu(x @ params["blocks"][0].W[i], approximate=False)
    logits = x @ params["head"].W + params["head"].b[None, None]
    return -jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(LABELS, N_OUT), (1, 2)), logits


@pytest.mark.parametrize("weighted", [False, True], ids=["mean", "weighted"])
def test_against_plain_jnp(weighted):
    weights = WEIGHTS if weighted else None

    def plain(params, x):
        return jnp.vdot(plain_losses(params, x)[0], WEIGHTS if weighted else jnp.full(BATCH, 1 / BATCH))

    found = jax.jit(hg.value_and_grad(MODEL, LOSS, argnums=(0, 1)))(PARAMS, X, LABELS, weights)
    assert_same(found, jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(PARAMS, X))


@pytest.mark.parametrize(
    ("argnums", "has_aux"), [(0, False), (1, False), ((0,), False), ((0, 1), False), (0, True), ([1, 0], True)], ids=str
)
def test_a_drop_in_for_autodiff_of_the_objective(argnums, has_aux):
    """The nesting of the result, its structures, dtypes and numbers."""
    options = {"argnums": argnums, "has_aux": has_aux}
    objective = hg.objective(MODEL, LOSS, has_aux=has_aux)

    @jax.jit
    def both(*arguments):
        found = hg.value_and_grad(MODEL, LOSS, **options)(*arguments), hg.grad(MODEL, LOSS, **options)(*arguments)
        return found, (jax.value_and_grad(objective, **options)(*arguments), jax.grad(objective, **options)(*arguments))

    assert_same(*both(PARAMS, X, LABELS, WEIGHTS))


def test_the_objective():
    losses, logits = plain_losses(PARAMS, X)
    objective = jax.jit(hg.objective(MODEL, LOSS))
    assert_same(objective(PARAMS, X, LABELS), losses.mean())
    assert_same(objective(PARAMS, X, LABELS, weights=WEIGHTS), jnp.vdot(losses, WEIGHTS))
    assert_same(jax.jit(hg.objective(MODEL, LOSS, has_aux=True))(PARAMS, X, LABELS), (losses.mean(), logits))


def test_nothing_is_normalized():
    """Weights are w_b, not shares: twice the weights, twice the value and the gradient; ones are the sum."""
    losses = plain_losses(PARAMS, X)[0]
    value_and_grad = VALUE_AND_GRAD
    ones = value_and_grad(PARAMS, X, LABELS, jnp.ones(BATCH))
    assert_same(ones[0], losses.sum())
    assert_same(jax.tree.map(lambda a: 2 * a, ones), value_and_grad(PARAMS, X, LABELS, jnp.full(BATCH, 2.0)))
    assert_same(jax.tree.map(lambda a: a / BATCH, ones), value_and_grad(PARAMS, X, LABELS))


def test_linear_in_the_weights():
    other = jnp.asarray(RNG.standard_normal(BATCH))
    value_and_grad = jax.jit(hg.value_and_grad(MODEL, LOSS, argnums=(0, 1)))
    one, two, both = (value_and_grad(PARAMS, X, LABELS, w) for w in (WEIGHTS, other, 2 * WEIGHTS - 3 * other))
    assert_same(both, jax.tree.map(lambda a, b: 2 * a - 3 * b, one, two), rtol=1e-13)


def test_weight_zero_is_padding():
    """The padded examples leave no trace, whatever numbers they hold."""
    value_and_grad = VALUE_AND_GRAD
    padded_x = jnp.concatenate([X, 100 * jnp.ones((2, TOKENS, N_IN))])
    padded_labels = jnp.concatenate([LABELS, jnp.zeros((2, TOKENS), LABELS.dtype)])
    padded = value_and_grad(PARAMS, padded_x, padded_labels, jnp.concatenate([WEIGHTS, jnp.zeros(2)]))
    assert_same(padded, value_and_grad(PARAMS, X, LABELS, WEIGHTS), rtol=1e-13)


@pytest.mark.parametrize(
    "weights",
    [WEIGHTS.astype(jnp.float32), np.asarray(WEIGHTS), jnp.arange(BATCH), jnp.ones(BATCH, bool)],
    ids=["float32", "numpy", "integers", "booleans"],
)
def test_weights_of_any_dtype(weights):
    found = VALUE_AND_GRAD(PARAMS, X, LABELS, weights)
    assert_same(found, VALUE_AND_GRAD(PARAMS, X, LABELS, jnp.asarray(weights, X.dtype)))


def test_value_and_factors():
    """One pass; then the gradient for any weights, without another."""

    @jax.jit
    def run(params, x):
        losses, factors = hg.value_and_factors(MODEL, LOSS)(params, x, LABELS)
        weighted, mean = (hg.value_and_grad(MODEL, LOSS)(params, x, LABELS, weights)[1] for weights in (WEIGHTS, None))
        mean_weights = jnp.full(BATCH, 1 / BATCH)
        sums = [hg.materialize(factors, weights) for weights in (WEIGHTS, mean_weights, None, jnp.ones(BATCH))]
        return losses, factors, sums, [weighted, mean]

    losses, factors, (weighted, mean, total, ones), expected = run(PARAMS, X)
    assert_same(losses, plain_losses(PARAMS, X)[0])
    assert_same([weighted, mean], expected)
    assert_same(total, ones)
    assert jax.tree.structure(factors, is_leaf=hg.is_factor) == jax.tree.structure(PARAMS)
    assert all(map(hg.is_factor, jax.tree.leaves(factors, is_leaf=hg.is_factor)))


def test_the_factors_hold_every_examples_gradient():
    _, factors = jax.jit(hg.value_and_factors(MODEL, LOSS))(PARAMS, X, LABELS)
    found = jax.tree.map(lambda factor: factor.per_example(), factors, is_leaf=hg.is_factor)
    assert_same(found, jax.jit(jax.jacrev(lambda params: plain_losses(params, X)[0]))(PARAMS))


def test_materialize_leaves_summed_gradients_as_they_are():
    summed = jnp.ones((2, 3))
    factors = {"factor": hg.Total(jnp.ones((4, 2))), "array": summed, "none": None, "empty": ()}
    grads = hg.materialize(factors)
    assert grads["array"] is summed
    assert grads["none"] is None
    assert grads["empty"] == ()
    assert grads["factor"].tolist() == [4, 4]
    with pytest.raises(hg.InputError, match=r"^materialize: weights need a factor, got .* float64 \(2, 3\)$"):
        hg.materialize(factors, jnp.ones(4))


@pytest.mark.parametrize(
    ("param_dtype", "x_dtype", "tolerance"),
    [
        ("float32", "float32", 1e-5),
        ("bfloat16", "float32", 2.0**-6),
        ("float32", "bfloat16", 2.0**-6),
        ("bfloat16", "bfloat16", 2.0**-4),
        ("float32", "float64", 2.0**-20),
        ("float64", "float32", 2.0**-20),
    ],
    ids=str,
)
def test_dtypes(param_dtype, x_dtype, tolerance):
    """Gradients in their arguments' dtypes, whatever those are; the numbers are those of float64 on rounded inputs."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal(p.shape), param_dtype), jax.eval_shape(SMALL.init, KEY, X)
    )
    x = X.astype(x_dtype)
    found = jax.jit(hg.value_and_grad(SMALL, LOSS, argnums=(0, 1)))(params, x, LABELS, WEIGHTS)
    expected = jax.eval_shape(SMALL_BY_AUTODIFF, params, x, LABELS, WEIGHTS)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), found) == jax.tree.map(lambda a: (a.shape, a.dtype), expected)
    exact = SMALL_BY_AUTODIFF(*jax.tree.map(lambda a: a.astype(np.float64), (params, x)), LABELS, WEIGHTS)
    assert_same(jax.tree.map(lambda a: a.astype(np.float64), found), exact, rtol=tolerance)


def test_bfloat16_losses_are_summed_in_float32():
    """512 losses of 1 and their mean; in bfloat16 the sum would stop at 256."""
    value = hg.objective(hg.identity(), hg.squared_error())
    x = jnp.ones((512, 1), jnp.bfloat16)
    assert value((), x, jnp.zeros_like(x), jnp.ones(512)) == 512
    assert value((), x, jnp.zeros_like(x)).dtype == jnp.float32
    assert hg.value_and_grad(hg.identity(), hg.squared_error())((), x, jnp.zeros_like(x), jnp.ones(512))[0] == 512


@pytest.mark.parametrize("keyed", [False, True], ids=["no key", "key"])
def test_keys(keyed):
    """The objective and the gradient by hand draw the same noise from the same key."""
    model = hg.chain(noise(), MODEL, noise())
    params, key = ((), PARAMS, ()), jax.random.key(3) if keyed else None
    arguments = (params, X, LABELS, None, key)

    @jax.jit
    def run(params, x, target, weights, key):
        arguments = params, x, target, weights, key
        found = hg.value_and_grad(model, LOSS, argnums=(0, 1))(*arguments)
        expected = jax.value_and_grad(hg.objective(model, LOSS), argnums=(0, 1))(*arguments)
        losses, factors = hg.value_and_factors(model, LOSS)(params, x, target, key)
        return found, expected, (losses.mean(), hg.materialize(factors, jnp.full(BATCH, 1 / BATCH)))

    found, expected, folded = run(*arguments)
    assert_same(found, expected)
    assert_same(folded, (found[0], found[1][0]))
    without = jax.jit(hg.objective(model, LOSS))(params, X, LABELS)
    assert (abs(found[0] - without) > 1e-3) == keyed


def test_the_gradient_can_be_differentiated():
    """Hessian-vector products, forward and reverse over the gradient by hand."""
    v = jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)), PARAMS)

    def plain(params):
        return plain_losses(params, X)[0].mean()

    @jax.jit
    def products(params, v):
        by_hand = lambda params: hg.grad(MODEL, LOSS)(params, X, LABELS)  # noqa: E731
        forward = jax.jvp(by_hand, (params,), (v,))[1]
        reverse = jax.vjp(by_hand, params)[1](v)[0]
        expected = jax.jvp(jax.grad(plain), (params,), (v,))[1]
        return [forward, reverse], [expected, expected]

    assert_same(*products(PARAMS, v))


def test_vmap_over_params():
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    value_and_grad = hg.value_and_grad(MODEL, LOSS)
    found = jax.jit(jax.vmap(value_and_grad, in_axes=(0, None, None)))(many, X, LABELS)
    for i, scale in enumerate((1, 2)):
        alone = VALUE_AND_GRAD(jax.tree.map(lambda p, scale=scale: scale * p, PARAMS), X, LABELS)
        assert_same(jax.tree.map(lambda a, i=i: a[i], found), alone)


def test_jit_traces_once_and_equals_eager():
    traces = []

    def counting(params, x, key=None):
        traces.append(x)
        return x, None

    model = hg.chain(hg.Layer(lambda key, x: (), counting, lambda residuals, dy: (dy, ())), MODEL)
    step = jax.jit(hg.value_and_grad(model, LOSS))
    results = [step(((), PARAMS), scale * X, LABELS, WEIGHTS) for scale in (1, 2, 1)]
    assert len(traces) == 1
    assert_same(results[0], results[2], rtol=0)
    assert_same(results[0], hg.value_and_grad(model, LOSS)(((), PARAMS), X, LABELS, WEIGHTS))


def test_donated_params():
    """A training step whose new params take the old ones' room."""

    def step(params, x):
        grads = hg.grad(MODEL, LOSS)(params, x, LABELS)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    expected = jax.jit(step)(PARAMS, X)
    donated = jax.tree.map(jnp.copy, PARAMS)
    assert_same(jax.jit(step, donate_argnums=0)(donated, X), expected)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))


@pytest.mark.parametrize("argnums", [2, -1, (0, 2), (), "x", None, [0, 2]], ids=repr)
def test_argnums(argnums):
    with pytest.raises(hg.InputError, match=r"^value_and_grad: argnums must be 0 \(params\), 1 \(x\) or .*, got "):
        hg.value_and_grad(MODEL, LOSS, argnums=argnums)


NAMED_LAYERS = {
    "gelu": hg.gelu(),
    "identity": hg.identity(),
    "linear": hg.linear(2),
    "residual": hg.residual(hg.tanh()),
}


@pytest.mark.parametrize("layer", NAMED_LAYERS.values(), ids=NAMED_LAYERS)
def test_numpy_float64_where_jax_computes_in_float32(layer):
    """What NumPy draws by default, in a program that never turned float64 on: a drop-in takes it as jax.grad does."""
    with jax.enable_x64(False):
        model, x, y = hg.chain(layer, hg.linear(3)), RNG.standard_normal((5, 4)), RNG.standard_normal((5, 3))
        params = model.init(KEY, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
        by_hand = hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1))(params, x, y)
        reference = jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1))(params, x, y)
        assert_same(by_hand, reference, 1e-6)


@pytest.mark.parametrize("function", [hg.objective, hg.value_and_grad, hg.grad, hg.value_and_factors])
def test_forgotten_parentheses(function):
    with pytest.raises(hg.InputError, match=rf"{function.__name__}: expected a Loss, as `squared_error\(\)` makes one"):
        function(MODEL, hg.squared_error)
    with pytest.raises(hg.InputError, match=rf"{function.__name__}: expected a Layer, as `relu\(\)` makes one"):
        function(hg.relu, LOSS)
