"""What several test files use: comparing pytrees, a layer that draws noise, and reading reports."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg


def optimized_jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """jax.jit with LLVM's optimizations, which conftest.py leaves out.

    Where rounding is what is tested they are a part of it: they fuse products with sums and approximate functions.
    """
    alone = jax.jit(function, compiler_options={"xla_backend_optimization_level": 3}, **options)
    inside = jax.jit(function, **options)  # only the outermost program takes compiler options

    def run(*arguments: Any, **keywords: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        return (inside if traced else alone)(*arguments, **keywords)

    return run


def assert_same(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    """The same structure, shapes and dtypes, and the same numbers within rtol of each array's largest."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, two = jax.random.key_data(one), jax.random.key_data(two)
        one, two = np.asarray(one, np.float64), np.asarray(two, np.float64)
        np.testing.assert_allclose(one, two, rtol=0, atol=rtol * np.abs(two).max(initial=1e-300))


def noise() -> hg.Layer:
    """y = x ∘ (1 + ε), ε normal: what a layer that uses its key looks like. Without a key, y = x."""

    def forward(params, x, key=None):
        drawn = jnp.ones_like(x) if key is None else 1 + jax.random.normal(key, x.shape, x.dtype)
        return x * drawn, drawn

    return hg.Layer(lambda key, x: (), forward, lambda drawn, dy: (dy * drawn, ()))


def names(report: hg.Report) -> list[str]:
    """The promises that a report says are broken."""
    return [contract.name for contract in report.contracts if contract.status == "FAIL"]


def check_right(report: hg.Report) -> None:
    """A plain PASS, of a run that would have seen something."""
    report.raise_if_failed()
    assert report.reason == ""
    assert names(report) == []
    assert all(row.status == "PASS" and row.power < 0.2 for row in report.rows), str(report)


def in_turn(table: Any) -> list[tuple[Any, str]]:
    """Each with one dtype: compiling is what a check costs."""
    return [(name, ("float64", "float32")[i % 2]) for i, name in enumerate(table)]


def passes(rule: Any, dY: Any, *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
    """A rule's output and the cotangents of its arguments, factors multiplied out."""
    Y, residuals = rule.forward(*arguments)
    return Y, hg.materialize(rule.backward(residuals, dY))


def together(calls: Any) -> list[Any]:
    """`passes` of each (rule, dY, arguments), all of them one program: compiling is what a test costs."""
    calls = list(calls)
    rules = [rule for rule, *_ in calls]

    @jax.jit
    def run(given):
        return [passes(rule, dY, *arguments) for rule, (dY, arguments) in zip(rules, given, strict=True)]

    return run([(dY, arguments) for _, dY, arguments in calls])


def assert_layers(rows: dict[str, tuple[hg.Layer, Any]], x: Any) -> None:
    """Name -> (layer without parameters, plain reference): values and gradients, in one program."""
    shapes = {name: jax.eval_shape(reference, x).shape for name, (_, reference) in rows.items()}
    rng = np.random.default_rng(1)

    @jax.jit
    def both(x, dys):
        pairs = {}
        for name, (layer, reference) in rows.items():
            key = jax.random.key(0)
            assert layer.init(key, x) == ()
            y, residuals = layer.forward((), x, key)
            dx, dparams = layer.backward(residuals, dys[name])
            assert dparams == ()
            expected, pullback = jax.vjp(reference, x)
            pairs[name] = (y, dx), (expected, *pullback(dys[name]))
        return pairs

    for found, expected in both(x, {name: rng.standard_normal(shape) for name, shape in shapes.items()}).values():
        assert_same(found, expected)


def drawn(layer: hg.Layer, x: Any, scale: float = 1.0, seed: int = 1) -> Any:
    """Parameters of a layer, none of them 0 or 1, by NumPy and device_put: an eager init, and jnp.asarray of NumPy's
    arrays, compile a program for each shape."""
    rng = np.random.default_rng(seed)
    like = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
    return jax.device_put(jax.tree.map(lambda p: (scale * rng.standard_normal(p.shape)).astype(p.dtype), like))


def both_gradients(model: hg.Layer, loss: hg.Loss, argnums: Any = (0, 1)) -> Callable[..., Any]:
    """One program: value and gradients by hand, and those of the same objective by autodiff."""
    by_hand = hg.value_and_grad(model, loss, argnums=argnums)
    by_autodiff = jax.value_and_grad(hg.objective(model, loss), argnums=argnums)
    return jax.jit(lambda *arguments: (by_hand(*arguments), by_autodiff(*arguments)))


def both_passes(layer: hg.Layer, reference: Callable[..., Any]) -> Callable[..., Any]:
    """One program: y and the cotangents of (params, x) by hand, and those of a plain function by jax.vjp."""

    @jax.jit
    def run(params, x, dy):
        y, residuals = layer.forward(params, x)
        dx, dparams = layer.backward(residuals, dy)
        expected, vjp = jax.vjp(reference, params, x)
        return (y, (hg.materialize(dparams), dx)), (expected, vjp(dy))

    return run


def assert_refused(rows: dict[str, Callable[[], Any]], traced: bool = True) -> None:
    """Each call is refused in this whole sentence, a pattern; JAX may add a note below it. Traced, if it can be: what
    comes before an error would compile a program for each operation."""
    for sentence, call in rows.items():
        with pytest.raises(hg.InputError, match=f"^{sentence}(\n|$)"):
            jax.eval_shape(lambda call=call: (call(), None)[1]) if traced else call()
