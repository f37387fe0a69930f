import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, noise

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, TARGET = jnp.asarray(RNG.standard_normal((4, 3, 6))), jnp.asarray(RNG.standard_normal((4, 3, 6)))
N, K = 3, 2
EXPERT = hg.chain(hg.linear(5), hg.gelu(), hg.linear(6))


def drawn(layer, x=X):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(layer.init, KEY, x))


def plain(params, x, softmax_over="chosen"):
    """Mixtral's or Switch's layer, token by token: only the chosen experts are asked. And each example's own loss."""
    (W, b), _, (V, c) = params.experts

    def token(x):
        logits = x @ params.gate.W
        top, chosen = jax.lax.top_k(logits, K)
        weights = jax.nn.softmax(top) if softmax_over == "chosen" else jax.nn.softmax(logits)[chosen]
        y = sum(g * (jax.nn.gelu(x @ W[e] + b[e], False) @ V[e] + c[e]) for g, e in zip(weights, chosen, strict=True))
        return y, jax.nn.softmax(logits), jnp.zeros(N).at[chosen].add(1 / K)

    y, P, share = jax.vmap(jax.vmap(token))(x)
    return y, N * (share.mean(1) * P.mean(1)).sum(-1), share, P


@pytest.mark.parametrize("softmax_over", ["chosen", "all"])
def test_against_each_token_sent_to_its_experts(softmax_over):
    layer = layers.mixture_of_experts(EXPERT, N, k=K, softmax_over=softmax_over)
    params = drawn(layer)

    @jax.jit
    def both(params, x, dy):
        y, residuals = layer.forward(params, x)
        dx, factors = layer.backward(residuals, dy)
        expected, pull_back = jax.vjp(lambda p, x: plain(p, x, softmax_over)[0], params, x)
        return (y, (hg.materialize(factors), dx)), (expected, pull_back(dy))

    assert_same(*both(params, X, TARGET))


def test_the_factors_are_each_examples_own():
    layer = layers.mixture_of_experts(EXPERT, N, k=K)
    params = drawn(layer)

    def one(params, x, target):
        return ((plain(params, x[None])[0] - target[None]) ** 2).sum() / 2

    @jax.jit
    def both(params):
        _, factors = hg.value_and_factors(layer, hg.l2_loss())(params, X, TARGET)
        assert isinstance(factors.gate.W, hg.factors.Outer)
        assert isinstance(factors.experts[0].W, hg.factors.Stacked)
        assert factors.experts[0].W.shape == (N, 6, 5)
        found = jax.tree.map(lambda f: (f.per_example(), f.sq_norms()), factors, is_leaf=hg.factors.is_factor)
        g = jax.vmap(jax.grad(one), (None, 0, 0))(params, X, TARGET)
        return found, jax.tree.map(lambda g: (g, (g**2).reshape(4, -1).sum(1)), g)

    assert_same(*both(params))


@pytest.mark.parametrize("counts", ["example", "batch"])
def test_the_balance_is_part_of_the_objective(counts):
    """In a chain, past other layers and around them, against autodiff of our objective and of the plain formula."""
    moe = layers.mixture_of_experts(EXPERT, N, k=K, balance=True, counts=counts)
    model = hg.chain(
        layers.begin_auxiliary(),
        layers.carry_auxiliary(moe, skip=True),
        layers.carry_auxiliary(hg.tanh()),
        layers.carry_auxiliary(moe),
    )
    loss = layers.add_auxiliary(hg.l2_loss(), 0.3)

    def by_formula(params, x):
        y, first, share, P = plain(params[1], x)
        z, second, share2, P2 = plain(params[3], jnp.tanh(x + y))
        if counts == "batch":  # the Switch Transformer's own: one number for the whole batch
            first, second = (N * (s.mean((0, 1)) * p.mean((0, 1))).sum() for s, p in ((share, P), (share2, P2)))
        return ((z - TARGET) ** 2).sum() / 2 / 4 + 0.3 * (jnp.mean(first) + jnp.mean(second))

    @jax.jit
    def three_ways(params, x):
        by_hand = hg.value_and_grad(model, loss, argnums=(0, 1))(params, x, TARGET)
        autodiff = jax.value_and_grad(hg.objective(model, loss), argnums=(0, 1))(params, x, TARGET)
        return by_hand, autodiff, jax.value_and_grad(by_formula, argnums=(0, 1))(params, x)

    by_hand, *others = three_ways(drawn(model), X)
    for other in others:
        assert_same(by_hand, other)


@pytest.mark.parametrize("counts", ["example", "batch"])
def test_examples_meet_in_the_counts_alone(counts):
    """Another example changes mine by way of f only, and not at all where f is counted over my own tokens."""
    layer = layers.mixture_of_experts(EXPERT, N, k=K, balance=True, counts=counts)
    params, other = drawn(layer), np.array(X)
    other[1] *= -1
    forward = jax.jit(lambda params, x: layer.forward(params, x)[0])
    (y, c), (other_y, other_c) = (jax.tree.map(np.asarray, forward(params, x)) for x in (X, other))
    assert (y[0] == other_y[0]).all()
    assert bool(c[0] == other_c[0]) == (counts == "example")


def test_keys():
    layer = layers.mixture_of_experts(hg.chain(hg.linear(6), noise()), N, k=K)
    params = drawn(layer)

    @jax.jit
    def run(params):
        one, residuals = layer.forward(params, X, KEY)
        again, without = layer.forward(params, X, KEY)[0], layer.forward(params, X)[0]
        by_hand, autodiff = hg.grad(layer, hg.l2_loss()), jax.grad(hg.objective(layer, hg.l2_loss()))
        gradients = [grad(params, X, TARGET, None, KEY) for grad in (by_hand, autodiff)]
        return (one, again, without, residuals.experts[1]), gradients

    arrays, gradients = run(params)
    one, again, without, drawn_noise = map(np.asarray, arrays)
    assert (one == again).all()
    assert (one != without).any()
    assert all((drawn_noise[i] != drawn_noise[j]).any() for i in range(N) for j in range(i))
    assert_same(*gradients)


def test_under_repeat():
    model = hg.repeat(hg.residual(layers.mixture_of_experts(EXPERT, N, k=K)), 2)

    @jax.jit
    def both(params):
        autodiff = jax.value_and_grad(hg.objective(model, hg.l2_loss()))
        return hg.value_and_grad(model, hg.l2_loss())(params, X, TARGET), autodiff(params, X, TARGET)

    assert_same(*both(drawn(model)))


def test_init():
    init = layers.mixture_of_experts(hg.linear(5), N, k=K).init
    params = jax.jit(lambda key: init(key, jax.ShapeDtypeStruct(X.shape, jnp.float32)))(KEY)
    assert isinstance(params, layers.MixtureOfExpertsParams)
    assert params.gate.W.shape == (6, N)
    W = np.asarray(params.experts.W)
    assert (W.shape, W.dtype) == ((N, 6, 5), jnp.float32)
    assert all((W[i] != W[j]).all() for i in range(N) for j in range(i))


def test_the_checker_finds_its_parts():
    layer = layers.mixture_of_experts(EXPERT, N, k=K)

    def run(params):
        parts = layer.parts(params, X)
        assert [part.name for part in parts] == ["gate", *(f"experts.{e}.{i}" for e in range(N) for i in range(3))]
        for _, part, own, x, key in parts:
            part.forward(own, x, key)

    jax.eval_shape(run, drawn(layer))


def test_refusals():
    with pytest.raises(hg.InputError, match=r"^mixture_of_experts: expected a Layer, "):
        layers.mixture_of_experts(hg.linear, 4, k=2)
    with pytest.raises(hg.InputError, match=r"^mixture_of_experts: k must be at most n, 4, got 5$"):
        layers.mixture_of_experts(EXPERT, 4, k=5)
    for n, k, name in ((0, 1, "n"), (2, 0, "k"), (2.0, 1, "n")):
        with pytest.raises(hg.InputError, match=rf"^mixture_of_experts: {name} must be a positive integer, got "):
            layers.mixture_of_experts(EXPERT, n, k=k)
    layer = layers.mixture_of_experts(EXPERT, N, k=K)
    params = drawn(layer)
    for wrong in ((), None, params.gate):
        with pytest.raises(hg.InputError, match=r"^mixture_of_experts: params must be MixtureOfExpertsParams, got "):
            layer.forward(wrong, X)
    with pytest.raises(hg.InputError, match=r"^mixture_of_experts: params.experts must be stacked 3 times, got "):
        layer.forward(drawn(layers.mixture_of_experts(EXPERT, 2, k=K)), X)
    with pytest.raises(hg.InputError, match=r"^mixture_of_experts: residuals must be MixtureOfExpertsResiduals, got "):
        layer.backward((), X)
    for wrong in (layers.carry_auxiliary(hg.tanh()).forward, layers.add_auxiliary(hg.l2_loss(), 1.0).forward):
        with pytest.raises(hg.InputError, match=r"_auxiliary: \w+ must be a pair, \(array, auxiliary loss\), got "):
            wrong(X, X)


def test_an_experts_kfac_is_that_of_its_own_tokens():
    layer = layers.mixture_of_experts(EXPERT, N, k=K)
    params = drawn(layer)
    _, factors = jax.jit(hg.value_and_factors(layer, hg.squared_error()))(params, X, TARGET)
    _, chosen = jax.lax.top_k(X @ params.gate.W, K)
    rows = [X[np.any(chosen == e, axis=-1)] for e in range(N)]
    found = hg.kfac_factors(factors).experts[0].W.A
    assert_same(found, np.stack([a.T @ a / len(a) for a in map(np.asarray, rows)]))
