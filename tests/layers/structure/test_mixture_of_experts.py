import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, both_passes, drawn, noise

import handgrad as hg
from handgrad import layers
from handgrad.layers import mixture_of_experts

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, TARGET = jax.device_put(RNG.standard_normal((4, 3, 6))), jax.device_put(RNG.standard_normal((4, 3, 6)))
N, K = 3, 2
EXPERT, LOSS = hg.chain(hg.linear(5), hg.gelu(), hg.linear(6)), hg.l2_loss()
LAYER = mixture_of_experts(EXPERT, N, k=K)
PARAMS = drawn(LAYER, X)


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
    layer = mixture_of_experts(EXPERT, N, k=K, softmax_over=softmax_over)
    assert_same(*both_passes(layer, lambda params, x: plain(params, x, softmax_over)[0])(PARAMS, X, TARGET))


def test_the_factors():
    """That they are each example's own is tests/folds/test_per_example.py's."""
    _, factors = jax.eval_shape(hg.value_and_factors(LAYER, LOSS), PARAMS, X, TARGET)
    assert isinstance(factors.gate.W, hg.factors.Outer)
    assert isinstance(factors.experts[0].W, hg.factors.Stacked)
    assert factors.experts[0].W.shape == (N, 6, 5)


@pytest.mark.parametrize("counts", ["example", "batch"])
def test_the_balance_is_part_of_the_objective(counts):
    """In a chain, past other layers and around them, against autodiff of our objective and of the plain formula."""
    moe = mixture_of_experts(EXPERT, N, k=K, balance=True, counts=counts)
    model = hg.chain(
        layers.begin_auxiliary(),
        layers.carry_auxiliary(moe, skip=True),
        layers.carry_auxiliary(hg.tanh()),
        layers.carry_auxiliary(moe),
    )
    loss = layers.add_auxiliary(LOSS, 0.3)

    def by_formula(params, x):
        y, first, share, P = plain(params[1], x)
        z, second, share2, P2 = plain(params[3], jnp.tanh(x + y))
        if counts == "batch":  # the Switch Transformer's own: one number for the whole batch
            first, second = (N * (s.mean((0, 1)) * p.mean((0, 1))).sum() for s, p in ((share, P), (share2, P2)))
        return ((z - TARGET) ** 2).sum() / 2 / 4 + 0.3 * (jnp.mean(first) + jnp.mean(second))

    params = drawn(model, X)
    by_hand, by_autodiff = both_gradients(model, loss)(params, X, TARGET)
    assert_same(by_hand, by_autodiff)
    assert_same(by_hand, jax.jit(jax.value_and_grad(by_formula, argnums=(0, 1)))(params, X))


def test_keys():
    layer = mixture_of_experts(hg.chain(hg.linear(6), noise()), N, k=K)

    @jax.jit
    def run(params):
        one, residuals = layer.forward(params, X, KEY)
        again, without = layer.forward(params, X, KEY)[0], layer.forward(params, X)[0]
        return (one, again, without, residuals.experts[1]), both_gradients(layer, LOSS)(params, X, TARGET, None, KEY)

    arrays, gradients = run(drawn(layer, X))
    one, again, without, noises = map(np.asarray, arrays)
    assert (one == again).all()
    assert (one != without).any()
    assert all((noises[i] != noises[j]).any() for i in range(N) for j in range(i))
    assert_same(*gradients)


def test_under_repeat():
    model = hg.repeat(hg.residual(LAYER), 2)
    assert_same(*both_gradients(model, LOSS, 0)(drawn(model, X), X, TARGET))


def test_init():
    init = mixture_of_experts(hg.linear(5), N, k=K).init
    params = jax.jit(lambda key: init(key, jax.ShapeDtypeStruct(X.shape, jnp.float32)))(KEY)
    assert isinstance(params, layers.MixtureOfExpertsParams)
    assert params.gate.W.shape == (6, N)
    W = np.asarray(params.experts.W)
    assert (W.shape, W.dtype) == ((N, 6, 5), jnp.float32)
    assert all((W[i] != W[j]).all() for i in range(N) for j in range(i))


def test_the_checker_finds_its_parts():
    def run(params):
        parts = LAYER.parts(params, X)
        assert [part.name for part in parts] == ["gate", *(f"experts.{e}.{i}" for e in range(N) for i in range(3))]
        for _, part, own, x, key in parts:
            part.forward(own, x, key)

    jax.eval_shape(run, PARAMS)


def test_refusals():
    two = drawn(mixture_of_experts(EXPERT, 2, k=K), X)
    rows = {
        "expected a Layer, .*": lambda: mixture_of_experts(hg.linear, 4, k=2),
        "k must be at most n, 4, got 5": lambda: mixture_of_experts(EXPERT, 4, k=5),
        "n must be a positive integer, got 0": lambda: mixture_of_experts(EXPERT, 0, k=1),
        "k must be a positive integer, got 0": lambda: mixture_of_experts(EXPERT, 2, k=0),
        "n must be a positive integer, got 2.0": lambda: mixture_of_experts(EXPERT, 2.0, k=1),
        "params must be MixtureOfExpertsParams, got tuple": lambda: LAYER.forward((), X),
        "params must be MixtureOfExpertsParams, got NoneType": lambda: LAYER.forward(None, X),
        "params must be MixtureOfExpertsParams, got LinearParams": lambda: LAYER.forward(PARAMS.gate, X),
        "params.experts must be stacked 3 times, got .*": lambda: LAYER.forward(two, X),
        "residuals must be MixtureOfExpertsResiduals, got .*": lambda: LAYER.backward((), X),
    }
    assert_refused({f"mixture_of_experts: {sentence}": call for sentence, call in rows.items()})
    for wrong in (layers.carry_auxiliary(hg.tanh()).forward, layers.add_auxiliary(LOSS, 1.0).forward):
        with pytest.raises(hg.InputError, match=r"_auxiliary: \w+ must be a pair, \(array, auxiliary loss\), got "):
            wrong(X, X)


def test_an_experts_kfac_is_that_of_its_own_tokens():

    @jax.jit
    def run(params):
        _, factors = hg.value_and_factors(LAYER, hg.squared_error())(params, X, TARGET)
        return hg.kfac_factors(factors).experts[0].W.A, jax.lax.top_k(X @ params.gate.W, K)[1]

    found, chosen = run(PARAMS)
    rows = [np.asarray(X)[np.any(chosen == e, axis=-1)] for e in range(N)]
    assert_same(found, np.stack([a.T @ a / len(a) for a in rows]))
