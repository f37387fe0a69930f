import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import noise

import handgrad as hg

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 5)))
TARGET = jnp.asarray(RNG.standard_normal((4, 2)))


def reference(W, b, V, c, x):
    return jnp.tanh(x @ W + b[None]) @ V + c[None]


POSITIONAL = hg.chain(hg.linear(3), hg.tanh(), hg.linear(2))
NAMED = hg.chain(hidden=hg.linear(3), activation=hg.tanh(), head=hg.linear(2))


def drawn(model):
    """Parameters of the model, none of them zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), jax.eval_shape(model.init, KEY, X))


def test_positional_layers_have_a_tuple_of_params():
    params = POSITIONAL.init(KEY, X)
    assert type(params) is tuple
    assert [type(p) for p in params] == [hg.LinearParams, tuple, hg.LinearParams]
    assert [params[i].W.shape for i in (0, 2)] == [(5, 3), (3, 2)]


def test_keyword_layers_have_a_dict_of_params():
    params = NAMED.init(KEY, X)
    assert list(params) == ["hidden", "activation", "head"]
    assert params["activation"] == ()
    assert (params["hidden"].W.shape, params["head"].W.shape) == ((5, 3), (3, 2))


def test_every_leaf_has_a_readable_path():
    model = hg.chain(body=hg.chain(hidden=hg.linear(3), activation=hg.tanh()), head=hg.linear(2, bias=False))
    paths = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(model.init(KEY, X))
    ]
    assert paths == ["body.hidden.W", "body.hidden.b", "head.W"]


@pytest.mark.parametrize("model", [POSITIONAL, NAMED], ids=["positional", "named"])
def test_value_and_gradient(model):
    """Against autodiff of the same network in plain jax.numpy."""
    params = drawn(model)

    @jax.jit
    def both(params, x):
        first, last = (params["hidden"], params["head"]) if model is NAMED else (params[0], params[2])
        y, residuals = model.forward(params, x)
        dx, factors = model.backward(residuals, TARGET)
        expected, vjp = jax.vjp(reference, *first, *last, x)
        return (y, dx, hg.materialize(factors)), (expected, vjp(TARGET))

    (y, dx, grads), (expected, (dW, db, dV, dc, expected_dx)) = both(params, X)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    first, last = (grads["hidden"], grads["head"]) if model is NAMED else (grads[0], grads[2])
    for found, value in zip((y, dx, *first, *last), (expected, expected_dx, dW, db, dV, dc), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-13)


def test_keyword_layers_run_in_the_order_written():
    """Not in the alphabet's, which is the one that JAX flattens a dict in."""
    zebra_first = hg.chain(zebra=hg.relu(), ant=hg.from_rule(hg.rules.softplus))
    params = jax.tree.map(lambda leaf: leaf, zebra_first.init(KEY, X))
    np.testing.assert_allclose(zebra_first.forward(params, X)[0], np.log1p(np.exp(np.maximum(X, 0))), rtol=1e-12)


def test_the_order_of_the_params_dict_does_not_matter():
    params = drawn(NAMED)
    turned = dict(reversed(params.items()))
    assert (NAMED.forward(turned, X)[0] == NAMED.forward(params, X)[0]).all()


def test_a_chain_of_one_and_chains_in_chains():
    flat, nested = POSITIONAL, hg.chain(hg.chain(hg.chain(hg.linear(3), hg.tanh())), hg.linear(2))
    params = drawn(flat)
    y, residuals = nested.forward(((params[:2],), params[2]), X)
    assert (y == flat.forward(params, X)[0]).all()
    dx, factors = nested.backward(residuals, TARGET)
    expected, flat_factors = flat.backward(flat.forward(params, X)[1], TARGET)
    assert (dx == expected).all()
    assert (factors[0][0][0].W.sum() == flat_factors[0].W.sum()).all()


def test_init_from_a_shape():
    """The same numbers as from an array, and nothing is computed with x."""
    from_array, from_shape = (NAMED.init(KEY, x) for x in (X, jax.ShapeDtypeStruct(X.shape, X.dtype)))
    for one, two in zip(jax.tree.leaves(from_array), jax.tree.leaves(from_shape), strict=True):
        assert (one == two).all()
    abstract = jax.eval_shape(NAMED.init, KEY, X)
    assert abstract["head"].W.shape == (3, 2)


def test_layers_of_one_form_start_differently():
    params = hg.chain(hg.linear(5), hg.linear(5)).init(KEY, X)
    assert (params[0].W != params[1].W).any()


def test_no_key_no_noise():
    model = hg.chain(noise(), hg.chain(noise(), hg.linear(2)))
    params = model.init(KEY, X)
    assert (model.forward(params, X)[0] == hg.linear(2).forward(params[1][1], X)[0]).all()


def test_the_same_key_gives_the_same_noise():
    model = hg.chain(noise(), hg.linear(2))
    params = model.init(KEY, X)
    one, again, other = (model.forward(params, X, jax.random.key(seed))[0] for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert (one != model.forward(params, X)[0]).any()


def test_every_layer_has_a_key_of_its_own():
    model = hg.chain(noise(), hg.chain(a=noise(), b=noise()), noise())
    _, (first, (second, third), fourth) = model.forward(((), {"a": (), "b": ()}, ()), X, KEY)
    kept = [first, second, third, fourth]
    assert all((kept[i] != kept[j]).all() for i in range(4) for j in range(i))


def test_the_gradient_sees_the_noise_of_its_own_key():
    model = hg.chain(hg.linear(3), noise(), hg.tanh(), noise(), hg.linear(2))
    params, key = drawn(model), jax.random.key(7)
    _, (_, one, _, two, _) = model.forward(params, X, key)

    def with_noise(params, x):
        (W, b), _, _, _, (V, c) = params
        prediction = (jnp.tanh((x @ W + b[None]) * one) * two) @ V + c[None]
        return ((prediction - TARGET) ** 2).sum() / 4

    value, grads = jax.jit(hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1)))(params, X, TARGET, None, key)
    expected, expected_grads = jax.jit(jax.value_and_grad(with_noise, argnums=(0, 1)))(params, X)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for found, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_a_chain_is_either_positional_or_named():
    with pytest.raises(hg.InputError, match=r"^chain: expected at least one layer, got none$"):
        hg.chain()
    counts = "1 positional and 1 keyword layers"
    with pytest.raises(hg.InputError, match=f"^chain: expected layers that are all .*, got {counts}$"):
        hg.chain(hg.relu(), named=hg.relu())


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (hg.chain(hg.relu(), hg.linear(3), hg.linear(2)), "1"),
        (hg.chain(hg.relu(), hg.chain(hg.tanh(), hg.linear(3))), "1.1"),
        (hg.chain(body=hg.chain(relu=hg.relu(), query=hg.linear(3)), head=hg.linear(2)), "body.query"),
        (hg.chain(encoder=hg.chain(hg.linear(3), hg.relu())), "encoder.0"),
        (hg.chain(block=hg.residual(hg.chain(hg.linear(5)))), "block.inside.0"),
        (hg.chain(blocks=hg.repeat(hg.chain(norm=hg.relu(), linear=hg.linear(5)), 2)), "blocks.linear"),
    ],
    ids=["positional", "nested", "keywords", "mixed", "residual", "repeat"],
)
def test_errors_name_the_layer(model, path):
    """In the forward pass, eager and under jit; and in `init` where the x doesn't suit."""
    params, narrow = drawn(model), X[:, :4]
    for forward in (model.forward, jax.jit(model.forward), lambda *args: jax.eval_shape(model.forward, *args)):
        with pytest.raises(hg.InputError) as raised:
            forward(params, narrow)
        message = str(raised.value)
        assert message.startswith(f"in layer {path}: linear_forward: X must have shape (4, 5) to meet W (5, ")
        assert message.endswith("got float64 (4, 4)")
    with pytest.raises(hg.InputError) as raised:
        model.init(KEY, X.astype(int))
    assert str(raised.value).startswith("in layer ")


def test_errors_of_the_backward_pass_name_the_layer():
    model = hg.chain(body=hg.chain(hg.linear(3), hg.tanh()), head=hg.linear(2))
    _, residuals = model.forward(drawn(model), X)
    with pytest.raises(hg.InputError) as raised:
        model.backward(residuals, TARGET[:, :1])
    assert str(raised.value) == (
        "in layer head: linear_backward: dY must be the cotangent of Y, float64 (4, 2), got float64 (4, 1)"
    )
    (_, tanh), head = residuals
    with pytest.raises(hg.InputError) as raised:
        model.backward(((tanh, tanh), head), TARGET)
    assert str(raised.value) == (
        "in layer body.0: linear_backward: residuals must be LinearResiduals, got TanhResiduals"
    )


def test_one_error_is_named_once_even_when_tried_twice():
    """The path belongs to the error, not to the model."""
    model = hg.chain(a=hg.chain(b=hg.linear(3)))
    messages = []
    for _ in range(2):
        with pytest.raises(hg.InputError) as raised:
            model.forward(drawn(model), X[:, :4])
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("in layer a.b: linear_forward: ")


@pytest.mark.parametrize(
    ("params", "got"),
    [
        ((), "a tuple of 0"),
        (((), ()), "a tuple of 2"),
        ([(), (), ()], "list"),
        ({"hidden": ()}, "a dict of 'hidden'"),
        (hg.LinearParams(X), "LinearParams"),
        (None, "NoneType"),
        (X, "float64 (4, 5)"),
    ],
    ids=["none", "two", "list", "dict", "linear", "None", "array"],
)
def test_params_of_another_model(params, got):
    with pytest.raises(hg.InputError) as raised:
        POSITIONAL.forward(params, X)
    assert str(raised.value) == f"chain: params must be a tuple of 3, one for each layer, got {got}"


@pytest.mark.parametrize(
    ("params", "got"),
    [
        ({"hidden": (), "head": ()}, "a dict of 'hidden', 'head'"),
        (((), (), ()), "a tuple of 3"),
        ({}, "a dict of nothing"),
    ],
    ids=["one missing", "tuple", "empty"],
)
def test_params_of_another_named_model(params, got):
    with pytest.raises(hg.InputError) as raised:
        NAMED.forward(params, X)
    assert str(raised.value) == (
        f"chain: params must be a dict of 'hidden', 'activation', 'head', one for each layer, got {got}"
    )


@pytest.mark.parametrize(
    "residuals", [(), None, [1, 2, 3], hg.rules.LinearResiduals(X, X, None)], ids=["none", "None", "list", "linear"]
)
def test_residuals_of_another_model(residuals):
    with pytest.raises(hg.InputError, match=r"^chain: residuals must be a tuple of 3, one for each layer, got "):
        POSITIONAL.backward(residuals, TARGET)
