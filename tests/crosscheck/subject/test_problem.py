"""Gradients in every form as functions of flat lists; arguments flat and back."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.crosscheck.subject import forms, functions
from handgrad.crosscheck.subject.arguments import Arguments, ProblemError
from handgrad.crosscheck.subject.problem import pullback
from handgrad.crosscheck.subject.words import label, parameter_names

X, W = np.random.default_rng(0).standard_normal((4, 3)), np.random.default_rng(1).standard_normal((3, 2))
COTANGENT = np.random.default_rng(2).standard_normal((4, 2))


class Pair(NamedTuple):
    W: object
    n: object


def test_arguments_flat_and_back():
    key = jax.random.key(0)
    args = ((Pair(W, 3), None), {"x": X, "mode": "fast"}, np.arange(3), 2.0, key, True)
    arguments = Arguments("abcdef", args)
    assert arguments.names == ["a.0.W", "b.x", "c", "d", "e"]
    assert arguments.differentiable() == [0, 1, 3]
    assert arguments.owner == [0, 1, 2, 3, 4]
    back = arguments.rebuild(arguments.leaves)
    assert jax.tree.structure(back) == jax.tree.structure(list(args))
    assert back[0][0].n == 3
    assert back[1]["mode"] == "fast"
    assert back[5] is True
    again = arguments.leaves_of(back)
    assert all(one is two for one, two in zip(again, arguments.leaves, strict=True))


def test_dtype_casts_floats_alone():
    arguments = Arguments("abc", (X, np.arange(3), X + 1j), dtype=np.float32)
    assert [leaf.dtype for leaf in arguments.leaves] == [np.float32, np.int64, np.complex128]
    assert Arguments("a", (X + 1j,), dtype=np.complex64).leaves[0].dtype == np.complex64
    assert Arguments("a", (X,), dtype="bfloat16").leaves[0].dtype == jnp.bfloat16


def test_fixed_positions_are_passed_on_whole():
    arguments = Arguments("ab", (X, {"W": W}), fixed=(1,))
    assert arguments.names == ["a"]
    assert arguments.rebuild([X])[1]["W"] is W


def test_labels():
    def mine(X, W, *rest, option=1):
        return X

    assert label(mine, "f") == "mine"
    assert label(functools.partial(mine, 1), "f") == "mine"
    assert label(lambda x: x, "f") == "f"
    assert parameter_names(mine, 4) == ["X", "W", "argument2", "argument3"]
    assert parameter_names(functools.partial(mine, option=2), 2) == ["X", "W"]
    assert parameter_names(lambda *args: args, 2) == ["argument0", "argument1"]


def same(problem, leaves, dYs):
    """By hand and by the reference: the same in every element."""
    by_reference = pullback(problem.primal, problem.wanted)
    both = jax.jit(lambda leaves, dYs: (problem.run(leaves, dYs), by_reference(leaves, dYs)))
    (Ys, mine), (others, theirs) = both(leaves, dYs)
    for one, two in zip((*Ys, *mine), (*others, *theirs), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-13, atol=1e-14)
    return mine


def test_from_rule():
    problem = forms.from_rule(
        None, lambda X, W: (X @ W, (X, W)), lambda r, dY: (dY @ r[1].T, r[0].T @ dY), (X, W), None
    )
    assert (problem.name, problem.reference) == ("backward", "autodiff of its own forward pass")
    assert problem.wanted_names == ["X", "W"]
    assert len(same(problem, [X, W], [COTANGENT])) == 2
    _, pull = jax.vjp(problem.differentiable, [X, W])
    np.testing.assert_allclose(pull([jnp.asarray(COTANGENT)])[0][1], X.T @ COTANGENT)


def test_from_function():
    problem = functions.from_function(None, lambda x, w: jnp.sum((x @ w) ** 3), jax.grad(lambda x, w: 0.0), (X, W), 0)
    assert problem.wanted_names == ["x"]
    good = functions.from_function(
        None, lambda x, w: jnp.sum(x @ w), lambda x, w: (x.sum(0)[:, None] + 0 * w,), (X, W), (1,)
    )
    assert good.wanted_names == ["w"]
    (dW,) = same(good, [X, W], [np.float64(-2.5)])
    np.testing.assert_allclose(dW, np.broadcast_to(-2.5 * X.sum(0)[:, None], W.shape))


def test_from_custom_vjp():
    f = jax.custom_vjp(lambda n, X: X**n, nondiff_argnums=(0,))
    f.defvjp(lambda n, X: (X**n, X), lambda n, X, dY: (n * X ** (n - 1) * dY,))
    problem = functions.from_custom_vjp(None, f, None, (3, X), {})
    assert (problem.wanted_names, problem.reference) == (["X"], "the function that it wraps")
    same(problem, [X], [X + 1])


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0, 0.0])])
def test_from_model(weights):
    model, loss = hg.chain(hg.linear(3), hg.gelu(), hg.linear(2)), hg.softmax_cross_entropy()
    params = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(0), X))
    problem = forms.from_model("net", model, loss, (params, X, np.array([0, 1, 1, 0]), weights))
    assert problem.wanted_names == ["params.0.W", "params.0.b", "params.2.W", "params.2.b", "x"]
    dlosses = np.array([1.0, -2.0, 0.5, 3.0])
    same(problem, problem.leaves, [dlosses])


def test_from_layer_needs_all_three():
    for part in ("init", "forward", "backward"):
        with pytest.raises(ProblemError, match=rf"without {part}"):
            forms.from_layer("mine", hg.linear(2)._replace(**{part: None}), X, None, None, None)


def test_x64_is_what_the_author_sees():
    """A rule on float32 with 64-bit types off makes float32 zeros; with NumPy float64 given, float64 ones."""

    def build(dtype):
        return forms.from_rule(None, lambda X: (X, ()), lambda _, dY: (dY,), (X.astype(dtype),), None)

    with jax.enable_x64(False):
        assert not build(np.float32).x64
        assert build(np.float64).x64
    assert build(np.float32).x64


def test_a_cotangent_of_none_is_zero_and_noted():
    problem = forms.from_rule(None, lambda X, W: (X @ W, W), lambda W, dY: (dY @ W.T, None), (X, W), None)
    _, (_, dW) = problem.run([X, W], [COTANGENT])
    assert not dW.any()
    assert problem.zeros == {1}


def test_surplus_nones_are_forgiven():
    problem = forms.from_rule(None, lambda X: (X, ()), lambda _, dY: (dY, None, None), (X,), None)
    assert problem.run([X], [X])[1][0].shape == X.shape
