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
N = 3


def drawn(layer, x=X):
    rng = np.random.default_rng(1)
    like = jax.eval_shape(layer.init, KEY, x)
    return jax.tree.map(lambda p: jnp.asarray((0.5 * rng.standard_normal(p.shape)).astype(p.dtype)), like)


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
    def linearized(f):
        def run(x):
            y, pull_back = jax.vjp(f, x)
            return y, lambda dy: (*pull_back(dy), "params")

        return run

    dY = jnp.cos(X), jnp.cos(DY)
    Y, pull_back = jax.vjp(lambda *x: couple(jnp.sin, jnp.square, *x), X, DY)
    x, dx, dparams = pull_back_coupling(linearized(jnp.sin), linearized(jnp.square), Y, dY)
    assert_same(x, (X, DY), 1e-14)
    assert_same(dx, pull_back(dY), 1e-14)
    assert dparams == ("params", "params")
    with pytest.raises(
        hg.InputError, match=r"^pull_back_coupling: dY2 must have shape \(4, 3, 6\) like its output, got"
    ):
        pull_back_coupling(linearized(jnp.sin), linearized(jnp.square), Y, (dY[0], dY[1][:2]))


def test_against_the_plain_equations():
    layer = layers.reversible(F, G)

    @jax.jit
    def both(params):
        y, residuals = layer.forward(params, X)
        dx, factors = layer.backward(residuals, DY)
        assert isinstance(factors.f[0].W, hg.factors.Outer)
        expected, pull_back = jax.vjp(plain, params, X)
        return (y, (hg.materialize(factors), dx)), (expected, pull_back(DY))

    assert_same(*both(drawn(layer)))


def test_reversible_and_plain_agree_to_rounding():
    """A chain of blocks with noise: the same noise once more on the way back."""
    f = hg.chain(F, noise())
    models = [hg.chain(*[layers.reversible(f, G, residuals=r)] * 2) for r in ("recompute", "save")]
    mine, plain, autodiff = both_ways(*models)(drawn(models[0]), jax.random.key(7))
    assert_same(mine, plain)
    assert_same(mine, autodiff)


@pytest.mark.parametrize(
    ("gradients", "key"), [("sums", jax.random.key(7)), ("factors", None)], ids=["sums", "factors"]
)
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
    the plain form's are, three times at most. The derivation says what large changes make of them.
    """
    rng = np.random.default_rng(0)
    f, g = (hg.chain(hg.linear(8), hg.tanh(), hg.linear(8)) for _ in range(2))
    x, dy = (jnp.asarray(rng.standard_normal((4, 16)).astype(np.float32)) for _ in range(2))
    sequence, repeat = layers.reversible_sequence(f, g, 64), hg.repeat(layers.reversible(f, g, residuals="save"), 64)
    params = jax.tree.map(lambda p: np.float32(0.2) * p, drawn(sequence, x))
    mine, plain = jax.jit(lambda *given: [hg.grad(model, hg.l2_loss())(*given) for model in (sequence, repeat)])(
        params, x, dy
    )
    in_float64 = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (params, x, dy))
    truth = jax.jit(hg.grad(repeat, hg.l2_loss()))(*in_float64)
    for one, two, true in zip(*map(jax.tree.leaves, (mine, plain, truth)), strict=True):
        assert one.dtype == jnp.float32
        one, two, true = (np.asarray(array, np.float64) for array in (one, two, true))
        assert np.linalg.norm(one - true) <= 3 * np.linalg.norm(two - true)


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
    repeat, summed = hg.repeat(layers.reversible(F, G), N), layers.reversible_sequence(F, G, N)

    @jax.jit
    def both(params):
        losses, factors = hg.value_and_factors(model, hg.l2_loss())(params, X, DY)
        _, expected = hg.value_and_factors(repeat, hg.l2_loss())(params, X, DY)
        return losses, factors.f[0].W, factors.f[0].W.sq_norms(), expected.f[0].W.sq_norms()

    losses, W, sq_norms, expected = both(params)
    assert losses.shape == (4,)
    assert isinstance(W, hg.factors.Stacked)
    assert W.shape == (N, 3, 5)
    assert_same(sq_norms, expected)
    with pytest.raises(hg.InputError, match=r"^materialize: weights need a factor, got a summed gradient"):
        jax.eval_shape(
            lambda params: hg.materialize(hg.value_and_factors(summed, hg.l2_loss())(params, X, DY)[1], jnp.ones(4)),
            params,
        )


def test_init():
    params = jax.eval_shape(layers.reversible(F, G).init, KEY, jax.ShapeDtypeStruct(X.shape, jnp.float32))
    assert isinstance(params, layers.ReversibleParams)
    assert params.f[0].W.shape == (3, 5)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    W = np.asarray(jax.jit(layers.reversible_sequence(hg.linear(3), hg.relu(), N).init)(KEY, X).f.W)
    assert W.shape == (N, 3, 3)
    assert (W[0] != W[1]).all()


@pytest.mark.parametrize("layer", [layers.reversible(F, G), layers.reversible_sequence(F, G, N)], ids=["one", "many"])
def test_the_checker_finds_its_parts(layer):
    def run(params):
        for _, part, own, x, key in layer.parts(params, X):
            part.forward(own, x, key)

    jax.eval_shape(run, drawn(layer))


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
    with pytest.raises(hg.InputError, match=r"^reversible_sequence: params must be stacked 3 times, got "):
        layers.reversible_sequence(F, G, N).forward(drawn(layers.reversible_sequence(F, G, 2)), X)
