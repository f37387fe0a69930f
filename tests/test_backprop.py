"""The model level: what a JAX user calls, against what JAX would have done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, drawn, noise

import handgrad as hg
from handgrad.factors import Total, is_factor

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, N_IN, N_OUT = 6, 3, 4, 3
X = RNG.standard_normal((BATCH, TOKENS, N_IN))
LABELS = RNG.integers(0, N_OUT, (BATCH, TOKENS))
WEIGHTS = RNG.uniform(-1, 2, BATCH)

MODEL = hg.chain(
    body=hg.chain(hg.linear(5), hg.tanh()),
    blocks=hg.repeat(hg.residual(hg.chain(hg.linear(5, bias=False), hg.gelu())), 2),
    head=hg.linear(N_OUT),
)
LOSS = hg.softmax_cross_entropy()
PARAMS = drawn(MODEL, X, 0.5)
VALUE_AND_GRAD = jax.jit(hg.value_and_grad(MODEL, LOSS, argnums=(0, 1)))

SMALL = hg.chain(hg.linear(5), hg.tanh(), hg.linear(N_OUT))
SMALL_PARAMS = drawn(SMALL, X, 0.5)
SMALL_BY_AUTODIFF = jax.jit(jax.value_and_grad(hg.objective(SMALL, LOSS), argnums=(0, 1)))


def in_numpy(tree):
    return jax.tree.map(np.asarray, tree)


@jax.jit
def plain_losses(params, x):
    """MODEL and LOSS again, in plain jax.numpy."""
    (W, b), _ = params["body"]
    x = jnp.tanh(x @ W + jnp.broadcast_to(b, (5,))[None, None])
    for i in range(2):
        x = x + jax.nn.gelu(x @ params["blocks"][0].W[i], approximate=False)
    logits = x @ params["head"].W + params["head"].b[None, None]
    return -jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(LABELS, N_OUT), (1, 2)), logits


def test_against_plain_jnp():
    """The mean, and sums weighted by w_b themselves: nothing is normalized, and twice the weights are twice the sum."""

    def plain(params, x, weights):
        return jnp.vdot(plain_losses(params, x)[0], weights)

    by_autodiff, ones = jax.jit(jax.value_and_grad(plain, argnums=(0, 1))), np.ones(BATCH)
    assert_same(VALUE_AND_GRAD(PARAMS, X, LABELS), by_autodiff(PARAMS, X, ones / BATCH))
    for weights in (WEIGHTS, ones, 2 * ones):
        assert_same(VALUE_AND_GRAD(PARAMS, X, LABELS, weights), by_autodiff(PARAMS, X, weights))


OPTIONS = [
    {"argnums": argnums, "has_aux": has_aux}
    for argnums, has_aux in [(0, False), (1, False), ((0,), False), ((0, 1), False), (0, True), ([1, 0], True)]
]


def test_a_drop_in_for_autodiff_of_the_objective():
    """The nesting of the result, its structures, dtypes and numbers."""

    def by_hand(options, *arguments):
        return hg.value_and_grad(MODEL, LOSS, **options)(*arguments), hg.grad(MODEL, LOSS, **options)(*arguments)

    def by_autodiff(options, *arguments):
        objective = hg.objective(MODEL, LOSS, has_aux=options["has_aux"])
        return jax.value_and_grad(objective, **options)(*arguments), jax.grad(objective, **options)(*arguments)

    @jax.jit
    def both(*arguments):
        return [[way(options, *arguments) for options in OPTIONS] for way in (by_hand, by_autodiff)]

    assert_same(*both(PARAMS, X, LABELS, WEIGHTS))


def test_the_objective():
    losses, logits = in_numpy(plain_losses(PARAMS, X))
    value, with_aux = hg.objective(MODEL, LOSS), hg.objective(MODEL, LOSS, has_aux=True)
    objectives = jax.jit(lambda p: (value(p, X, LABELS), value(p, X, LABELS, weights=WEIGHTS), with_aux(p, X, LABELS)))
    assert_same(objectives(PARAMS), (losses.mean(), losses @ WEIGHTS, (losses.mean(), logits)))


def test_weight_zero_is_padding():
    """The padded examples leave no trace, whatever numbers they hold."""
    x = np.concatenate([X, np.full((2, TOKENS, N_IN), 100.0)])
    labels = np.concatenate([LABELS, np.zeros((2, TOKENS), LABELS.dtype)])
    value, (dparams, dx) = VALUE_AND_GRAD(PARAMS, x, labels, np.concatenate([WEIGHTS, np.zeros(2)]))
    assert_same((value, (dparams, np.asarray(dx)[:-2])), VALUE_AND_GRAD(PARAMS, X, LABELS, WEIGHTS), rtol=1e-13)
    assert not np.any(np.asarray(dx)[-2:])


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_weights_of_any_dtype(dtype):
    weights = np.arange(BATCH).astype(dtype)
    found, expected = (VALUE_AND_GRAD(PARAMS, X, LABELS, w) for w in (weights, weights.astype(X.dtype)))
    assert_same(found, expected)


def test_value_and_factors():
    """One pass; then the gradient for any weights, without another, and each example's own."""

    @jax.jit
    def run(params, x):
        losses, factors = hg.value_and_factors(MODEL, LOSS)(params, x, LABELS)
        mean_weights = jnp.full(BATCH, 1 / BATCH)
        sums = [hg.materialize(factors, weights) for weights in (WEIGHTS, mean_weights, None, jnp.ones(BATCH))]
        return losses, factors, sums, hg.per_example_grads(factors)

    losses, factors, (weighted, mean, total, ones), each = run(PARAMS, X)
    assert_same(losses, plain_losses(PARAMS, X)[0])
    assert_same([weighted, mean], [VALUE_AND_GRAD(PARAMS, X, LABELS, w)[1][0] for w in (WEIGHTS, None)])
    assert_same(total, ones)
    assert_same(each, jax.jit(jax.jacrev(lambda params: plain_losses(params, X)[0]))(PARAMS))
    assert jax.tree.structure(factors, is_leaf=is_factor) == jax.tree.structure(PARAMS)
    assert all(map(is_factor, jax.tree.leaves(factors, is_leaf=is_factor)))


def test_materialize_leaves_summed_gradients_as_they_are():
    summed = jnp.ones((2, 3))
    factors = {"factor": Total(jnp.ones((4, 2))), "array": summed, "none": None, "empty": ()}
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
    params, x = jax.tree.map(lambda p: p.astype(param_dtype), drawn(SMALL, X)), X.astype(jnp.dtype(x_dtype))
    found = jax.jit(hg.value_and_grad(SMALL, LOSS, argnums=(0, 1)))(params, x, LABELS, WEIGHTS)
    expected = jax.eval_shape(SMALL_BY_AUTODIFF, params, x, LABELS, WEIGHTS)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), found) == jax.tree.map(lambda a: (a.shape, a.dtype), expected)
    exact = SMALL_BY_AUTODIFF(*jax.tree.map(lambda a: a.astype(np.float64), (params, x)), LABELS, WEIGHTS)
    assert_same(jax.tree.map(lambda a: np.asarray(a, np.float64), found), exact, rtol=tolerance)


def test_bfloat16_losses_are_summed_in_float32():
    """512 losses of 1 and their mean; in bfloat16 the sum would stop at 256."""
    x, weights = np.ones((512, 1), jnp.bfloat16), np.ones(512)
    of_objective, of_grad = (jax.jit(of(hg.identity(), hg.squared_error())) for of in (hg.objective, hg.value_and_grad))
    assert of_objective((), x, np.zeros_like(x), weights).item() == 512
    assert jax.eval_shape(of_objective, (), x, x).dtype == np.float32
    assert of_grad((), x, np.zeros_like(x), weights)[0].item() == 512


@pytest.mark.parametrize("keyed", [False, True], ids=["no key", "key"])
def test_keys(keyed):
    """The objective and the gradient by hand draw the same noise from the same key."""
    model = hg.chain(noise(), SMALL, noise())
    params, key = ((), SMALL_PARAMS, ()), jax.random.key(3) if keyed else None

    @jax.jit
    def run(params, x):
        found, expected = both_gradients(model, LOSS)(params, x, LABELS, None, key)
        losses, factors = hg.value_and_factors(model, LOSS)(params, x, LABELS, key)
        without = hg.objective(model, LOSS)(params, x, LABELS)
        return found, expected, (losses.mean(), hg.materialize(factors, jnp.full(BATCH, 1 / BATCH))), without

    found, expected, folded, without = run(params, X)
    assert_same(found, expected)
    assert_same(folded, (found[0], found[1][0]))
    assert (abs(found[0].item() - without.item()) > 1e-3) == keyed


def test_the_gradient_can_be_differentiated():
    """Hessian-vector products, forward and reverse over the gradient by hand."""

    def plain(params):
        return plain_losses(params, X)[0].mean()

    @jax.jit
    def products(params, v):
        by_hand = lambda params: hg.grad(MODEL, LOSS)(params, X, LABELS)  # noqa: E731
        forward = jax.jvp(by_hand, (params,), (v,))[1]
        reverse = jax.vjp(by_hand, params)[1](v)[0]
        expected = jax.jvp(jax.grad(plain), (params,), (v,))[1]
        return [forward, reverse], [expected, expected]

    assert_same(*products(PARAMS, jax.tree.map(jnp.cos, PARAMS)))


def test_vmap_over_params():
    many = jax.tree.map(lambda p: np.stack([p, 2 * p]), PARAMS)
    value_and_grad = hg.value_and_grad(MODEL, LOSS, argnums=(0, 1))
    found = in_numpy(jax.jit(jax.vmap(value_and_grad, in_axes=(0, None, None)))(many, X, LABELS))
    for i in range(2):
        alone = VALUE_AND_GRAD(jax.tree.map(lambda p, i=i: p[i], many), X, LABELS)
        assert_same(jax.tree.map(lambda a, i=i: a[i], found), alone)


def test_jit_traces_once_and_equals_eager():
    traces = []

    def counting(params, x, key=None):
        traces.append(x)
        return x, None

    model = hg.chain(hg.Layer(lambda key, x: (), counting, lambda residuals, dy: (dy, ())), hg.linear(N_OUT))
    params = drawn(model, X)
    step = jax.jit(hg.value_and_grad(model, LOSS))
    traces.clear()
    results = [step(params, scale * X, LABELS, WEIGHTS) for scale in (1, 2, 1)]
    assert len(traces) == 1
    assert_same(results[0], results[2], rtol=0)
    assert_same(results[0], hg.value_and_grad(model, LOSS)(params, X, LABELS, WEIGHTS))


def test_donated_params():
    """A training step whose new params take the old ones' room."""

    def step(params, x):
        grads = hg.grad(SMALL, LOSS)(params, x, LABELS)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    expected = jax.jit(step)(SMALL_PARAMS, X)
    donated = jax.tree.map(jnp.asarray, SMALL_PARAMS)
    assert_same(jax.jit(step, donate_argnums=0)(donated, X), expected)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))


@pytest.mark.parametrize("argnums", [2, -1, (0, 2), (), "x", None, [0, 2]], ids=repr)
def test_argnums(argnums):
    said = r"value_and_grad: argnums must be 0 \(params\), 1 \(x\) or .*, got .*"
    assert_refused({said: lambda: hg.value_and_grad(MODEL, LOSS, argnums=argnums)})


def test_numpy_float64_where_jax_computes_in_float32():
    """What NumPy draws by default, in a program that never turned float64 on: a drop-in takes it as jax.grad does."""
    model = hg.chain(hg.gelu(), hg.identity(), hg.linear(2), hg.residual(hg.tanh()), hg.linear(3))
    x, y = RNG.standard_normal((5, 4)), RNG.standard_normal((5, 3))
    with jax.enable_x64(False):
        params = jax.jit(model.init)(KEY, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
        # Not compiled: under jit the arguments would be float32 already.
        by_hand = hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1))(params, x, y)
        reference = jax.jit(jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1)))(params, x, y)
        assert_same(by_hand, reference, 1e-6)


@pytest.mark.parametrize("function", [hg.objective, hg.value_and_grad, hg.grad, hg.value_and_factors])
def test_forgotten_parentheses(function):
    with pytest.raises(hg.InputError, match=rf"{function.__name__}: expected a Loss, as `squared_error\(\)` makes one"):
        function(MODEL, hg.squared_error)
    with pytest.raises(hg.InputError, match=rf"{function.__name__}: expected a Layer, as `relu\(\)` makes one"):
        function(hg.relu, LOSS)
