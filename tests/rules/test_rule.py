"""custom_vjp and custom_vjp_rule: layers and rules inside programs that are not handgrad's."""

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
LAYER = hg.chain(hg.linear(5), hg.tanh(), hg.linear(N_OUT, bias=False))
LAYER_PARAMS = jax.tree.map(
    lambda p: jnp.asarray(RNG.standard_normal(p.shape)) / 2, jax.eval_shape(LAYER.init, KEY, X[:, 0])
)


def plain_layer(params, x):
    (W, b), _, (V, _) = params
    return jnp.tanh(x @ W + b[None]) @ V


def program(f):
    """Operations before and after, so that f's input is no leaf and its cotangent is not ones."""
    return lambda params, x: jnp.sum(jnp.sin(f(params, x * jnp.cos(x))) ** 2)


def by_scan(f):
    """f in every step of a recurrence."""

    def scanned(params, x):
        def step(h, _):
            h = jnp.concatenate([f(params, h), h[:, :1]], axis=1)
            return h, jnp.sum(h**3)

        return jax.lax.scan(step, x, None, length=4)[1]

    return scanned


def by_vmap(f):
    return lambda params, x: jax.vmap(lambda x: f(params, x[None]))(x)[:, 0]


def by_vmap_over_params(f):
    def mapped(params, x):
        many = jax.tree.map(lambda p: jnp.stack([p, p**2]), params)
        return jax.vmap(f, in_axes=(0, None))(many, x)

    return mapped


def second_derivative(f):
    """Reverse over reverse: the gradient of a gradient's norm, with respect to params and x."""

    def norm(params, x):
        return sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(program(f), argnums=(0, 1))(params, x)))

    return norm


PROGRAMS = {
    "grad": lambda f: f,
    "jit": jax.jit,
    "vmap": by_vmap,
    "vmap over params": by_vmap_over_params,
    "scan": by_scan,
    "checkpoint": jax.checkpoint,
    "checkpoint in scan": lambda f: by_scan(jax.checkpoint(f)),
    "jit of vmap of checkpoint": lambda f: jax.jit(by_vmap(jax.checkpoint(f))),
    "second derivative": second_derivative,
    "second derivative of jit": lambda f: second_derivative(jax.jit(f)),
}


@pytest.mark.parametrize("transform", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_custom_vjp(transform):
    f = hg.custom_vjp(LAYER)

    @jax.jit
    def both(params, x):
        return tuple(
            jax.value_and_grad(program(transform(function)), argnums=(0, 1))(params, x) for function in (f, plain_layer)
        )

    assert_same(*both(LAYER_PARAMS, X[:, 0]))


def test_custom_vjp_uses_the_backward_pass_by_hand():
    """Else every test above would pass with autodiff."""
    calls = []

    def backward(residuals, dy):
        calls.append(dy)
        return 7 * dy, ()

    f = hg.custom_vjp(hg.Layer(lambda key, x: (), lambda params, x, key=None: (x, None), backward))
    assert jax.grad(lambda x: f((), x).sum())(X).tolist() == jnp.full_like(X, 7).tolist()
    assert len(calls) == 1


def test_custom_vjp_with_a_key():
    layer, key = hg.chain(noise(), LAYER), jax.random.key(5)
    f = hg.custom_vjp(layer)

    def drawn(params, x):
        return jnp.sum(layer.forward(params, x, key)[0] ** 2)

    params = ((), LAYER_PARAMS)
    x = X[:, 0]
    by_hand = jax.jit(jax.value_and_grad(lambda params, x: jnp.sum(f(params, x, key) ** 2), argnums=(0, 1)))
    assert_same(by_hand(params, x), jax.jit(jax.value_and_grad(drawn, argnums=(0, 1)))(params, x))
    f = jax.jit(f)
    assert_same(f(params, x), plain_layer(LAYER_PARAMS, x))
    assert (f(params, x, key=key) == f(params, x, key)).all()
    keys = jax.random.split(key, 2)
    assert_same(jax.jit(jax.vmap(f, in_axes=(None, None, 0)))(params, x, keys)[1], f(params, x, keys[1]))


W, B = jnp.asarray(RNG.standard_normal((N_IN, 2))), jnp.asarray(RNG.standard_normal(2))
LABELS_2D = LABELS[:, 0]
RULES = {
    "linear": (
        hg.rules.linear,
        lambda x, W, b: x @ W + b[None],
        (X[:, 0], W, B),
    ),
    "linear-no-bias": (
        hg.rules.linear,
        lambda x, W: x @ W,
        (X[:, 0], W),
    ),
    "softmax_cross_entropy-labels": (
        lambda z: hg.rules.softmax_cross_entropy.with_options(label_smoothing=0.1)(z, LABELS_2D % N_IN),
        lambda z: (
            -jnp.sum(
                (0.9 * jax.nn.one_hot(LABELS_2D, N_IN) + 0.1 / N_IN)
                * jnp.log(jnp.exp(z) / jnp.exp(z).sum(1, keepdims=True)),
                1,
            )
        ),
        (X[:, 0],),
    ),
    "squared_error": (
        hg.rules.squared_error,
        lambda a, y: jnp.sum((a - y) ** 2, axis=1),
        (X[:, 0], X[:, 1]),
    ),
    "leaky_relu": (
        hg.rules.leaky_relu.with_options(negative_slope=0.3),
        lambda x: jnp.where(x > 0, x, 0.3 * x),
        (X,),
    ),
    "gelu": (
        hg.rules.gelu.with_options(approximate=True),
        lambda x: x / 2 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))),
        (X,),
    ),
}


@pytest.mark.parametrize(("rule", "reference", "arguments"), RULES.values(), ids=RULES.keys())
def test_custom_vjp_rule(rule, reference, arguments):
    """Every argument's cotangent, with operations before and after, under jit."""

    @jax.jit
    def both(*arguments):
        return tuple(
            jax.value_and_grad(
                lambda *arguments, f=f: jnp.sum(jnp.sin(f(*[jnp.sin(a) for a in arguments])) ** 2),
                argnums=tuple(range(len(arguments))),
            )(*arguments)
            for f in (rule, reference)
        )

    assert_same(*both(*arguments))


def test_custom_vjp_rule_with_integer_arguments():
    """An integer argument is an argument: passed through grad, not closed over, it has no cotangent."""
    f = hg.rules.softmax_cross_entropy
    z = X[:, 0]
    found = jax.jit(jax.grad(lambda z, labels: f(z, labels).sum()))(z, LABELS_2D)
    assert_same(found, jax.nn.softmax(z) - jax.nn.one_hot(LABELS_2D, N_IN, dtype=z.dtype))
    mapped = jax.jit(jax.vmap(lambda z, label: f(z[None], label[None])[0]))(z, LABELS_2D)
    assert_same(mapped, jax.jit(f)(z, LABELS_2D))


def test_custom_vjp_rule_takes_keywords_and_no_bias_by_name():
    f = hg.rules.linear
    x = X[:, 0]
    assert_same(f(x, W, None), x @ W)
    assert_same(f(x, W, b=B), f(x, W, B))
    assert f.__name__ == "linear"
