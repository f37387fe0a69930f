import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, both_passes, drawn, noise

import handgrad as hg
from handgrad.layers import ReversibleParams, reversible, reversible_sequence
from handgrad.rules import couple, pull_back_coupling, uncouple

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, DY = jax.device_put(RNG.standard_normal((4, 3, 6))), jax.device_put(RNG.standard_normal((4, 3, 6)))
F, G = hg.chain(hg.linear(5), hg.tanh(), hg.linear(3)), hg.chain(hg.linear(3), hg.gelu())
NOISY = hg.chain(F, noise())
N, LOSS = 3, hg.l2_loss()


def check_same(model, other, key):
    """Value, dparams and dx by hand of both, and of the first by autodiff."""
    params = drawn(model, X, 0.5)
    assert jax.tree.structure(params) == jax.tree.structure(drawn(other, X))

    @jax.jit
    def run(params):
        arguments = params, X, DY, None, key
        return both_gradients(model, LOSS)(*arguments), hg.value_and_grad(other, LOSS, argnums=(0, 1))(*arguments)

    (found, autodiff), expected = run(params)
    assert_same(found, expected)
    assert_same(found, autodiff)


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
    wrong = dY[0], dY[1][:2]
    sentence = r"pull_back_coupling: dY2 must have shape \(4, 3, 6\) like its output, got .*"
    assert_refused({sentence: lambda: pull_back_coupling(linearized(jnp.sin), linearized(jnp.square), Y, wrong)})


def test_against_the_plain_equations():
    layer = reversible(F, G)
    params = drawn(layer, X, 0.5)
    assert_same(*both_passes(layer, plain)(params, X, DY))
    _, factors = jax.eval_shape(lambda params: layer.backward(layer.forward(params, X)[1], DY), params)
    assert isinstance(factors.f[0].W, hg.factors.Outer)


def test_reversible_and_plain_agree_to_rounding():
    """A chain of blocks with noise: the same noise once more in the backward pass."""
    check_same(*(hg.chain(*[reversible(NOISY, G, residuals=r)] * 2) for r in ("recompute", "save")), jax.random.key(7))


@pytest.mark.parametrize(
    ("gradients", "key"), [("sums", jax.random.key(7)), ("factors", None)], ids=["sums", "factors"]
)
def test_the_sequence_and_repeat_agree_to_rounding(gradients, key):
    sequence = reversible_sequence(NOISY, G, N, gradients=gradients)
    check_same(sequence, hg.repeat(reversible(NOISY, G, residuals="save"), N), key)


def test_in_float32_over_sixty_four_blocks():
    """The input found again is off by roundings: where blocks change their input by little, gradients are off by what
    the plain form's are, three times at most. The derivation says what large changes make of them.
    """
    rng = np.random.default_rng(0)
    f, g = (hg.chain(hg.linear(8), hg.tanh(), hg.linear(8)) for _ in range(2))
    x, dy = (jnp.asarray(rng.standard_normal((4, 16)).astype(np.float32)) for _ in range(2))
    sequence, repeat = reversible_sequence(f, g, 64), hg.repeat(reversible(f, g, residuals="save"), 64)
    params = drawn(sequence, x, 0.1)
    mine, plain = jax.jit(lambda *given: [hg.grad(model, LOSS)(*given) for model in (sequence, repeat)])(params, x, dy)
    in_float64 = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (params, x, dy))
    truth = jax.jit(hg.grad(repeat, LOSS))(*in_float64)
    for one, two, true in zip(*map(jax.tree.leaves, (mine, plain, truth)), strict=True):
        assert one.dtype == jnp.float32
        one, two, true = (np.asarray(array, np.float64) for array in (one, two, true))
        assert np.linalg.norm(one - true) <= 3 * np.linalg.norm(two - true)


def test_what_is_kept():
    """The output and the parameters, references; nothing stacked."""
    layer = reversible_sequence(F, G, N)
    params = drawn(layer, X)
    y, residuals = layer.forward(params, X)
    assert set(map(id, jax.tree.leaves(residuals))) == set(map(id, (y, *jax.tree.leaves(params))))


def test_memory_does_not_grow_with_the_depth():
    f, g = (hg.chain(hg.linear(32), hg.tanh(), hg.linear(32)) for _ in range(2))
    x = jax.ShapeDtypeStruct((256, 64), np.float32)

    def temporary(model):
        params = jax.eval_shape(model.init, KEY, x)
        compiled = jax.jit(hg.value_and_grad(model, LOSS)).lower(params, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    shallow, deep = (temporary(reversible_sequence(f, g, n)) for n in (4, 16))
    activation = 256 * 64 * 4
    assert deep < shallow + activation / 8
    assert temporary(hg.repeat(reversible(f, g, residuals="save"), 16)) > shallow + 12 * activation


def test_factors_of_the_sequence():
    model, repeat = reversible_sequence(F, G, N, gradients="factors"), hg.repeat(reversible(F, G), N)

    both = jax.jit(lambda params: [hg.value_and_factors(m, LOSS)(params, X, DY) for m in (model, repeat)])
    (losses, factors), expected = both(drawn(model, X, 0.5))
    assert isinstance(factors.f[0].W, hg.factors.Stacked)
    assert_same((losses, factors), expected)


def test_init():
    params = jax.eval_shape(reversible(F, G).init, KEY, jax.ShapeDtypeStruct(X.shape, jnp.float32))
    assert isinstance(params, ReversibleParams)
    assert params.f[0].W.shape == (3, 5)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    W = np.asarray(jax.jit(reversible_sequence(hg.linear(3), hg.relu(), N).init)(KEY, X).f.W)
    assert W.shape == (N, 3, 3)
    assert (W[0] != W[1]).all()


@pytest.mark.parametrize("layer", [reversible(F, G), reversible_sequence(F, G, N)], ids=["one", "many"])
def test_the_checker_finds_its_parts(layer):
    jax.eval_shape(lambda params: [part.forward(*given) for _, part, *given in layer.parts(params, X)], drawn(layer, X))


def test_refusals():
    layer, narrow, sequence = reversible(F, G), reversible(hg.linear(2), G), reversible_sequence(F, G, N)
    params, of_narrow, of_two = drawn(layer, X), drawn(narrow, X), drawn(reversible_sequence(F, G, 2), X)
    _, residuals = jax.eval_shape(layer.forward, params, X)
    rows = {
        r"x must have an even number of features, got float64 \(4, 3\)": lambda: layer.init(KEY, X[:, 0, :3]),
        r"x must have an even number of features, got float64 \(4, 3, 5\)": lambda: layer.forward(params, X[..., :5]),
        "params must be ReversibleParams, got tuple": lambda: layer.forward((params.f, params.g), X),
        "params must be ReversibleParams, got NoneType": lambda: layer.forward(None, X),
        "residuals must be ReversibleResiduals, got tuple": lambda: layer.backward((), X),
        r"dy must have shape \(4, 3, 6\) like y, got float64 \(4, 3\)": lambda: layer.backward(residuals, X[..., 0]),
        "residuals must be 'recompute' or 'save', got 'keep'": lambda: reversible(F, G, residuals="keep"),
    }
    of_sequence = {
        "gradients must be 'sums' or 'factors', got None": lambda: reversible_sequence(F, G, N, gradients=None),
        "n must be a positive integer, got 0": lambda: reversible_sequence(F, G, 0),
        "n must be a positive integer, got 2.0": lambda: reversible_sequence(F, G, 2.0),
        "n must be a positive integer, got None": lambda: reversible_sequence(F, G, None),
        "params must be stacked 3 times, got .*": lambda: sequence.forward(of_two, X),
    }
    assert_refused({f"reversible: {sentence}": call for sentence, call in rows.items()})
    assert_refused({f"reversible_sequence: {sentence}": call for sentence, call in of_sequence.items()})

    def weighted():
        return hg.materialize(hg.value_and_factors(sequence, LOSS)(drawn(sequence, X), X, DY)[1], jnp.ones(4))

    like = r"F\(X2\) must be like X1, float64 \(4, 3, 3\), got float64 \(4, 3, 2\)"
    summed = "weights need a factor, got a summed gradient.*"
    assert_refused({f"couple: {like}": lambda: narrow.forward(of_narrow, X)})
    assert_refused({f"materialize: {summed}": lambda: jax.eval_shape(weighted)})
