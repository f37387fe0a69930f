"""Rules and layers (by hg.custom_vjp) as functions of other JAX programs. tests/rules/test_contracts.py differentiates
every rule of the table of cases in this way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, noise
from jax.sharding import AxisType, PartitionSpec as P

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X, A = RNG.standard_normal((2, 6, 4))
W, V, B = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 3)), RNG.standard_normal(3)
LABELS = RNG.integers(0, 4, 6)
LAYER = hg.chain(hg.linear(3), hg.tanh(), hg.linear(3, bias=False))
LAYER_PARAMS = (hg.LinearParams(W, B), (), hg.LinearParams(V))


def by_rules(params, x):
    (W, b), _, (V, _) = params
    return rules.linear(rules.tanh(rules.linear(x, W, b=b)), V)


def plain(params, x):
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


def by_shard_map(f):
    """The batch over two devices, parameters on both."""
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    return jax.shard_map(f, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))


def second_derivative(f):
    """Reverse over reverse: the gradient of a gradient's norm, with respect to params and x."""

    def norm(params, x):
        return sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(program(f), argnums=(0, 1))(params, x)))

    return norm


TRANSFORMS = {
    "grad": lambda f: f,
    "jit": jax.jit,
    "vmap": by_vmap,
    "vmap over params": by_vmap_over_params,
    "scan": by_scan,
    "checkpoint": jax.checkpoint,
    "checkpoint in scan": lambda f: by_scan(jax.checkpoint(f)),
    "jit of vmap of checkpoint": lambda f: jax.jit(by_vmap(jax.checkpoint(f))),
    "shard_map": by_shard_map,
    "second derivative": second_derivative,
    "second derivative of jit": lambda f: second_derivative(jax.jit(f)),
}


def test_under_every_transform():
    """One program of all: a few rules, and a layer of the same, beside plain jax.numpy."""
    functions = {"rules": by_rules, "layer": hg.custom_vjp(LAYER), "plain": plain}

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(params, x):
        return {
            (transform, name): jax.value_and_grad(program(TRANSFORMS[transform](f)), argnums=(0, 1))(params, x)
            for transform in TRANSFORMS
            for name, f in functions.items()
        }

    found = run(LAYER_PARAMS, X)
    for transform in TRANSFORMS:
        for name in ("rules", "layer"):
            assert_same(found[transform, name], found[transform, "plain"])


def test_a_rule_is_a_function():
    """jax.jit and jax.grad take the rule itself; it unpacks into its passes, and has a name."""
    forward, backward = rules.tanh
    assert (forward, backward) == (rules.tanh_forward, rules.tanh_backward)
    assert rules.tanh.__name__ == rules.tanh.with_options(residuals="recompute").__name__ == "tanh"
    assert_same(jax.jit(rules.tanh)(X), np.tanh(X))
    assert_same(jax.jit(jax.grad(rules.einsum.with_options(subscripts="ij,ij->")))(X, A), A)
    assert rules.tanh == rules.Rule(*rules.tanh)
    assert {rules.tanh: 1}[rules.Rule(*rules.tanh)] == 1


def test_options_and_arguments_by_name():
    """As the forward pass takes them; settled by with_options, by custom_vjp_rule, or given with the call."""

    @jax.jit
    def run(x):
        slopes = [
            jax.grad(lambda x: jnp.sum(jnp.sin(rules.leaky_relu(jnp.sin(x), negative_slope=0.3))))(x),
            jax.grad(lambda x: jnp.sum(jnp.sin(rules.leaky_relu.with_options(negative_slope=0.3)(jnp.sin(x)))))(x),
            jax.grad(lambda x: jnp.sum(jnp.sin(hg.custom_vjp_rule(*rules.leaky_relu, negative_slope=0.3)(jnp.sin(x)))))(
                x
            ),
            jax.grad(lambda x: jnp.sum(jnp.sin(jax.nn.leaky_relu(jnp.sin(x), 0.3))))(x),
        ]
        maps = [rules.linear(x, W, b=B), rules.linear(X=x, W=W, b=B), rules.linear(x, W), rules.linear(x, W, None)]
        smooth = jax.grad(lambda z: jnp.sum(rules.softmax_cross_entropy(z, LABELS, label_smoothing=0.1)))(x)
        Q = 0.9 * jax.nn.one_hot(LABELS, 4, dtype=x.dtype) + 0.025
        return slopes, maps, smooth, jax.nn.softmax(x) - Q

    (called, settled, pair, expected), maps, smooth, expected_smooth = run(X)
    for slope in (called, settled, pair):
        assert_same(slope, expected)
    for found, other in zip(maps, [X @ W + B] * 2 + [X @ W] * 2, strict=True):
        assert_same(found, other)
    assert_same(smooth, expected_smooth)
    with pytest.raises(TypeError, match="negative_slop"):
        rules.leaky_relu(X, negative_slop=0.3)


def test_integer_arguments():
    """An integer argument is an argument: passed through grad, not closed over, it has no cotangent."""
    f = rules.softmax_cross_entropy

    @jax.jit
    def run(z, labels):
        mapped = jax.vmap(lambda z, label: f(z[None], label[None])[0])(z, labels)
        expected = jax.nn.softmax(z) - jax.nn.one_hot(labels, 4, dtype=z.dtype)
        return jax.grad(lambda z, labels: f(z, labels).sum())(z, labels), expected, mapped, f(z, labels)

    found, expected, mapped, losses = run(X, LABELS)
    assert_same(found, expected)
    assert_same(mapped, losses)


def test_the_backward_pass_by_hand_is_used():
    """Else every test above would pass with autodiff."""
    calls = []

    def backward(residuals, dy):
        calls.append(dy)
        return 7 * dy, ()

    layer = hg.custom_vjp(hg.Layer(lambda key, x: (), lambda params, x, key=None: (x, None), backward))
    rule = hg.Rule(lambda x: (x, None), lambda residuals, dy: backward(residuals, dy)[:1])
    for f in (rule, lambda x: layer((), x)):
        assert jax.grad(lambda x, f=f: f(x).sum())(X).tolist() == np.full_like(X, 7).tolist()
    assert len(calls) == 2


def test_an_option_of_the_forward_pass_alone():
    """Only options that are given reach the backward pass: a stranger's may know none."""
    rule = hg.Rule(lambda x, *, scale=1.0: (scale * x, None), lambda residuals, dy: (dy,))
    assert jax.grad(lambda x: rule(x).sum())(X).tolist() == np.ones_like(X).tolist()


def test_custom_vjp_with_a_key():
    """Noise where there is a key, none without."""
    layer, key = hg.chain(noise(), LAYER), jax.random.key(5)
    f = hg.custom_vjp(layer)
    params, keys = ((), LAYER_PARAMS), jax.random.split(key, 2)

    @jax.jit
    def run(params, x):
        def gradients(function):
            return jax.value_and_grad(lambda *a: jnp.sum(function(*a) ** 2), argnums=(0, 1))(params, x)

        drawn = gradients(lambda *a: f(*a, key)), gradients(lambda *a: layer.forward(*a, key)[0])
        named = f(params, x, key=key), f(params, x, key)
        mapped = jax.vmap(f, in_axes=(None, None, 0))(params, x, keys)[1], f(params, x, keys[1])
        return drawn, named, mapped, (f(params, x), plain(LAYER_PARAMS, x))

    for one, other in run(params, X):
        assert_same(one, other)
