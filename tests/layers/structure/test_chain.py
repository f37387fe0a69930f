import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_passes, drawn, noise

import handgrad as hg

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X, TARGET = (jax.device_put(RNG.standard_normal(shape)) for shape in ((4, 5), (4, 2)))
POSITIONAL = hg.chain(hg.linear(3), hg.tanh(), hg.linear(2))
NAMED = hg.chain(hidden=hg.linear(3), activation=hg.tanh(), head=hg.linear(2))


def test_params_are_a_tuple_or_a_dict():
    positional, named = (model.init(KEY, X) for model in (POSITIONAL, NAMED))
    assert type(positional) is tuple
    assert named.keys() == {"hidden", "activation", "head"}
    for params in (positional, [named[name] for name in ("hidden", "activation", "head")]):
        assert [type(p) for p in params] == [hg.LinearParams, tuple, hg.LinearParams]
        assert [params[i].W.shape for i in (0, 2)] == [(5, 3), (3, 2)]


def test_every_leaf_has_a_readable_path():
    model = hg.chain(body=hg.chain(hidden=hg.linear(3), activation=hg.tanh()), head=hg.linear(2, bias=False))
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, KEY, X))
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    assert paths == ["body.hidden.W", "body.hidden.b", "head.W"]


@pytest.mark.parametrize("model", [POSITIONAL, NAMED], ids=["positional", "named"])
def test_value_and_gradient(model):
    """Against autodiff of the same network in plain jax.numpy."""

    def reference(params, x):
        (W, b), _, (V, c) = map(params.get, ("hidden", "activation", "head")) if model is NAMED else params
        return jnp.tanh(x @ W + b[None]) @ V + c[None]

    assert_same(*both_passes(model, reference)(drawn(model, X), X, TARGET))


def test_keyword_layers_run_in_the_order_written():
    """Not in the alphabet's, which is the one that JAX flattens a dict in; nor in that of the params' dict."""
    zebra_first = hg.chain(zebra=hg.relu(), ant=hg.from_rule(hg.rules.softplus))
    params = jax.tree.map(lambda leaf: leaf, zebra_first.init(KEY, X))
    np.testing.assert_allclose(zebra_first.forward(params, X)[0], np.log1p(np.exp(np.maximum(X, 0))), rtol=1e-12)
    params = drawn(NAMED, X)
    assert (NAMED.forward(dict(reversed(params.items())), X)[0] == NAMED.forward(params, X)[0]).all()


def test_a_chain_of_one_and_chains_in_chains():
    nested = hg.chain(hg.chain(hg.chain(hg.linear(3), hg.tanh())), hg.linear(2))
    params = drawn(POSITIONAL, X)
    (y, residuals), (expected, of_flat) = nested.forward(((params[:2],), params[2]), X), POSITIONAL.forward(params, X)
    assert (y == expected).all()
    (dx, factors), (expected, of_flat) = nested.backward(residuals, TARGET), POSITIONAL.backward(of_flat, TARGET)
    assert (dx == expected).all()
    assert (factors[0][0][0].W.sum() == of_flat[0].W.sum()).all()


def test_init():
    """From a shape as from an array, and layers of one form start differently."""
    from_array, from_shape = (NAMED.init(KEY, x) for x in (X, jax.ShapeDtypeStruct(X.shape, X.dtype)))
    assert_same(from_shape, from_array, rtol=0)
    params = hg.chain(hg.linear(5), hg.linear(5)).init(KEY, X)
    assert (params[0].W != params[1].W).any()


def test_keys():
    """No key, no noise; the same key, the same noise; every layer has its own."""
    model = hg.chain(noise(), hg.chain(a=noise(), b=noise()), noise())
    params = model.init(KEY, X)
    assert (model.forward(params, X)[0] == X).all()
    y, (first, (second, third), fourth) = model.forward(params, X, jax.random.key(1))
    again, other = (model.forward(params, X, jax.random.key(seed))[0] for seed in (1, 2))
    assert (y == again).all()
    assert (y != other).any()
    kept = [first, second, third, fourth]
    assert all((kept[i] != kept[j]).all() for i in range(4) for j in range(i))


def test_the_gradient_sees_the_noise_of_its_own_key():
    model = hg.chain(hg.linear(3), noise(), hg.tanh(), noise(), hg.linear(2))
    params, key = drawn(model, X), jax.random.key(7)
    _, (_, one, _, two, _) = model.forward(params, X, key)

    def with_noise(params, x):
        (W, b), _, _, _, (V, c) = params
        prediction = (jnp.tanh((x @ W + b[None]) * one) * two) @ V + c[None]
        return ((prediction - TARGET) ** 2).sum() / 4

    found = jax.jit(hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1)))(params, X, TARGET, None, key)
    assert_same(found, jax.jit(jax.value_and_grad(with_noise, argnums=(0, 1)))(params, X))


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
    """In the forward pass, eager, again and under jit; and in `init` where the x doesn't suit."""
    params, narrow = drawn(model, X), X[:, :4]
    sentence = rf"in layer {path}: linear_forward: X must have shape \(4, 5\) to meet W \(5, .*, got float64 \(4, 4\)"
    for forward in (model.forward, model.forward, jax.jit(model.forward)):
        assert_refused({sentence: lambda forward=forward: forward(params, narrow)})
    assert_refused({"in layer .*": lambda: model.init(KEY, X.astype(int))})


def test_errors_of_the_backward_pass_name_the_layer():
    model = hg.chain(body=hg.chain(hg.linear(3), hg.tanh()), head=hg.linear(2))
    _, residuals = model.forward(drawn(model, X), X)
    (_, tanh), head = residuals
    other, kept = ((tanh, tanh), head), "residuals must be LinearResiduals, got TanhResiduals"
    cotangent = r"dY must be the cotangent of Y, float64 \(4, 2\), got float64 \(4, 1\)"
    assert_refused(
        {
            f"in layer head: linear_backward: {cotangent}": lambda: model.backward(residuals, TARGET[:, :1]),
            f"in layer body.0: linear_backward: {kept}": lambda: model.backward(other, TARGET),
        }
    )


def test_refusals():
    """Others are tests/test_bad_input.py's."""
    one_kind = "expected layers that are all positional or all keywords, got 1 positional and 1 keyword layers"
    a_tuple = "must be a tuple of 3, one for each layer, got"
    a_dict = "params must be a dict of 'hidden', 'activation', 'head', one for each layer, got"
    rows = {f"chain: {one_kind}": lambda: hg.chain(hg.relu(), named=hg.relu())}
    for got, params in (("a tuple of 0", ()), ("list", [(), (), ()]), (r"float64 \(4, 5\)", X)):
        rows[f"chain: params {a_tuple} {got}"] = lambda params=params: POSITIONAL.forward(params, X)
    for got, params in (("a dict of 'hidden', 'head'", {"hidden": (), "head": ()}), ("a dict of nothing", {})):
        rows[f"chain: {a_dict} {got}"] = lambda params=params: NAMED.forward(params, X)
    of_linear = hg.rules.LinearResiduals(X, X, None)
    for got, kept in (("a tuple of 0", ()), ("NoneType", None), ("list", [1, 2, 3]), ("LinearResiduals", of_linear)):
        rows[f"chain: residuals {a_tuple} {got}"] = lambda kept=kept: POSITIONAL.backward(kept, TARGET)
    assert_refused(rows)
