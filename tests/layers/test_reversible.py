import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, noise

import handgrad as hg
from handgrad import layers
from handgrad.rules import couple, pull_back_coupling, uncouple

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, DY = jnp.asarray(RNG.standard_normal((4, 3, 6))), jnp.asarray(RNG.standard_normal((4, 3, 6)))
F, G = hg.chain(hg.linear(5), hg.tanh(), hg.linear(3)), hg.chain(hg.linear(3), hg.gelu())
N = 4


def drawn(layer, x=X):
    return jax.tree.map(
        lambda p: jnp.asarray(0.5 * RNG.standard_normal(p.shape), p.dtype), jax.eval_shape(layer.init, KEY, x)
    )


def both_ways(model, other):
    """value, dparams and dx of both, by hand, and of the first by autodiff."""

    @jax.jit
    def run(params, key):
        arguments = (params, X, DY, None, key)
        autodiff = jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1))(*arguments)
        by_hand = (hg.value_and_grad(m, hg.l2_loss(), argnums=(0, 1))(*arguments) for m in (model, other))
        return *by_hand, autodiff

    return run


def plain(params, x):
    """RevNet's own equations."""
    x1, x2 = x[..., :3], x[..., 3:]
    (W, b), _, (V, c) = params.f
    y1 = x1 + jnp.tanh(x2 @ W + b[None, None]) @ V + c[None, None]
    (U, d), _ = params.g
    return jnp.concatenate([y1, x2 + jax.nn.gelu(y1 @ U + d[None, None], False)], -1)


def test_the_equations_undo_each_other():
    f, g = jnp.sin, jnp.square  # neither has an inverse
    Y = couple(f, g, X, DY)
    for found, expected in zip(uncouple(f, g, *Y), (X, DY), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_the_pull_back_finds_the_input_too():
    def linearised(f):
        def run(x):
            y, pull_back = jax.vjp(f, x)
            return y, lambda dy: (*pull_back(dy), "params")

        return run

    dY = jnp.cos(X), jnp.cos(DY)
    Y, pull_back = jax.vjp(lambda *x: couple(jnp.sin, jnp.square, *x), X, DY)
    x, dx, dparams = pull_back_coupling(linearised(jnp.sin), linearised(jnp.square), Y, dY)
    assert_same(x, (X, DY), 1e-14)
    assert_same(dx, pull_back(dY), 1e-14)
    assert dparams == ("params", "params")
    with pytest.raises(
        hg.InputError, match=r"^pull_back_coupling: dY2 must have shape \(4, 3, 6\) like its output, got"
    ):
        pull_back_coupling(linearised(jnp.sin), linearised(jnp.square), Y, (dY[0], dY[1][:2]))


def test_against_the_plain_equations():
    layer = layers.reversible(F, G)
    params = drawn(layer)
    y, residuals = layer.forward(params, X)
    dx, factors = layer.backward(residuals, DY)
    expected, pull_back = jax.vjp(plain, params, X)
    assert_same(y, expected)
    assert_same((hg.materialize(factors), dx), pull_back(DY))
    assert isinstance(factors.f[0].W, hg.Outer)


@pytest.mark.parametrize("key", [None, jax.random.key(7)], ids=["without a key", "with a key"])
def test_reversible_and_plain_agree_to_rounding(key):
    """A chain of blocks with noise: the same noise once more on the way back."""
    f = hg.chain(F, noise())
    params = drawn(hg.chain(*[layers.reversible(f, G)] * 3))
    models = [hg.chain(*[layers.reversible(f, G, residuals=r)] * 3) for r in ("recompute", "save")]
    mine, plain, autodiff = both_ways(*models)(params, key)
    assert_same(mine, plain)
    assert_same(mine, autodiff)


@pytest.mark.parametrize("gradients", ["sums", "factors"])
@pytest.mark.parametrize("key", [None, jax.random.key(7)], ids=["without a key", "with a key"])
def test_the_sequence_and_repeat_agree_to_rounding(gradients, key):
    f = hg.chain(F, noise())
    sequence = layers.reversible_sequence(f, G, N, gradients=gradients)
    repeat = hg.repeat(layers.reversible(f, G, residuals="save"), N)
    params = drawn(sequence)
    assert jax.tree.structure(params) == jax.tree.structure(drawn(repeat))
    mine, repeated, autodiff = both_ways(sequence, repeat)(params, key)
    assert_same(mine, repeated)
    assert_same(mine, autodiff)


def test_in_float32_over_sixty_four_blocks():
    """The input found again is off by roundings: where blocks change their input by little, gradients are off by what
    the plain form's are, three times at most. docs/derivations/reversible.md says what large changes make of them.
    """
    rng = np.random.default_rng(0)
    f, g = (hg.chain(hg.linear(8), hg.tanh(), hg.linear(8)) for _ in range(2))
    x, dy = (jnp.asarray(rng.standard_normal((4, 16)), jnp.float32) for _ in range(2))
    sequence, repeat = layers.reversible_sequence(f, g, 64), hg.repeat(layers.reversible(f, g, residuals="save"), 64)
    params = jax.tree.map(lambda p: p * jnp.float32(0.3), sequence.init(KEY, x))
    mine, plain = (jax.jit(hg.grad(model, hg.l2_loss()))(params, x, dy) for model in (sequence, repeat))
    in_float64 = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x, dy))
    truth = jax.jit(hg.grad(repeat, hg.l2_loss()))(*in_float64)
    for one, two, true in zip(*map(jax.tree.leaves, (mine, plain, truth)), strict=True):
        assert one.dtype == jnp.float32
        assert float(jnp.linalg.norm(one - true)) <= 3 * float(jnp.linalg.norm(two - true))


def test_what_is_kept():
    """The output and the parameters, references; nothing stacked."""
    layer = layers.reversible_sequence(F, G, N)
    params = drawn(layer)
    y, residuals = layer.forward(params, X)
    arrays = {id(leaf) for leaf in (y, *jax.tree.leaves(params))}
    assert {id(leaf) for leaf in jax.tree.leaves(residuals)} == arrays


def test_memory_does_not_grow_with_the_depth():
    f, g = (hg.chain(hg.linear(32), hg.tanh(), hg.linear(32)) for _ in range(2))
    x = jax.ShapeDtypeStruct((256, 64), np.float32)

    def temporary(model):
        params = jax.eval_shape(model.init, KEY, x)
        compiled = jax.jit(hg.value_and_grad(model, hg.l2_loss())).lower(params, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    shallow, deep = (temporary(layers.reversible_sequence(f, g, n)) for n in (4, 16))
    activation = 256 * 64 * 4
    assert deep < shallow + activation / 8
    assert temporary(hg.repeat(layers.reversible(f, g, residuals="save"), 16)) > shallow + 12 * activation


def test_factors_of_the_sequence():
    model = layers.reversible_sequence(F, G, N, gradients="factors")
    params = drawn(model)
    losses, factors = jax.jit(hg.value_and_factors(model, hg.l2_loss()))(params, X, DY)
    _, expected = jax.jit(hg.value_and_factors(hg.repeat(layers.reversible(F, G), N), hg.l2_loss()))(params, X, DY)
    W, expected_W = factors.f[0].W, expected.f[0].W
    assert losses.shape == (4,)
    assert isinstance(W, hg.Stacked)
    assert W.shape == (N, 3, 5)
    assert_same(W.sq_norms(), expected_W.sq_norms())
    summed = layers.reversible_sequence(F, G, N)
    with pytest.raises(hg.InputError, match=r"^materialize: weights need a factor, got a summed gradient"):
        hg.materialize(hg.value_and_factors(summed, hg.l2_loss())(params, X, DY)[1], jnp.ones(4))


def test_init():
    params = layers.reversible(F, G).init(KEY, X.astype(jnp.float32))
    assert isinstance(params, layers.ReversibleParams)
    assert params.f[0].W.shape == (3, 5)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    W = layers.reversible_sequence(F, G, N).init(KEY, X).f[0].W
    assert W.shape == (N, 3, 5)
    assert (W[0] != W[1]).all()


@pytest.mark.parametrize("layer", [layers.reversible(F, G), layers.reversible_sequence(F, G, N)], ids=["one", "many"])
def test_the_checker_finds_its_parts(layer):
    for _, part, params, x, key in layer.parts(drawn(layer), X):
        part.forward(params, x, key)


def test_refusals():
    with pytest.raises(
        hg.InputError, match=r"^reversible: x must have an even number of features, got float64 \(4, 3\)"
    ):
        layers.reversible(F, G).init(KEY, X[:, 0, :3])
    layer = layers.reversible(F, G)
    params = drawn(layer)
    with pytest.raises(hg.InputError, match=r"^reversible: x must have an even number of features, got "):
        layer.forward(params, X[..., :5])
    for wrong in ((), None, (params.f, params.g)):
        with pytest.raises(hg.InputError, match=r"^reversible: params must be ReversibleParams, got "):
            layer.forward(wrong, X)
    narrow = layers.reversible(hg.linear(2), G)
    of_narrow = drawn(narrow)
    with pytest.raises(
        hg.InputError, match=r"^couple: F\(X2\) must be like X1, float64 \(4, 3, 3\), got float64 \(4, 3, 2"
    ):
        narrow.forward(of_narrow, X)
    with pytest.raises(hg.InputError, match=r"^reversible: residuals must be ReversibleResiduals, got tuple$"):
        layer.backward((), X)
    with pytest.raises(
        hg.InputError, match=r"^reversible: dy must have shape \(4, 3, 6\) like y, got float64 \(4, 3\)"
    ):
        layer.backward(layer.forward(params, X)[1], X[..., 0])
    with pytest.raises(hg.InputError, match=r"^reversible: residuals must be 'recompute' or 'save', got 'keep'$"):
        layers.reversible(F, G, residuals="keep")
    with pytest.raises(hg.InputError, match=r"^reversible_sequence: gradients must be 'sums' or 'factors', got None$"):
        layers.reversible_sequence(F, G, N, gradients=None)
    for n in (0, 2.0, None):
        with pytest.raises(hg.InputError, match=r"^reversible_sequence: n must be a positive integer, got "):
            layers.reversible_sequence(F, G, n)
    with pytest.raises(hg.InputError, match=r"^reversible_sequence: params must be stacked 4 times, got "):
        layers.reversible_sequence(F, G, N).forward(drawn(layers.reversible_sequence(F, G, 3)), X)
