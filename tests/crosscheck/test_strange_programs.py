"""Functions as they come: decorated, of odd shapes, calling other functions; and what fails inside the checker."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_right

import handgrad as hg
from handgrad.crosscheck import course
from handgrad.crosscheck.numerics.interpret import evaluate
from handgrad.crosscheck.subject.functions import wrapped

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((4, 6)), RNG.standard_normal((6, 3))
QUICK: Any = {"control": False, "contracts": False, "transforms": ()}
NUMBERS: Any = {**QUICK, "differences": False}


def with_gradient(f, forward, backward, **options) -> Any:
    f = jax.custom_vjp(f, **options)
    f.defvjp(forward, backward)
    return f


sine = with_gradient(lambda x: jnp.sin(x), lambda x: (jnp.sin(x), x), lambda x, d: (d * jnp.cos(x),))


@functools.wraps(sine)
def twice(x):
    return 2 * sine(x)


def test_a_product_of_two_vectors():
    """jnp.dot of two vectors is a scalar, which NumPy's reshape wants as a tuple."""
    forward, f = (lambda x: (jnp.dot(x, x), x)), (lambda x: jnp.dot(x, x))
    report = hg.check_custom_vjp(with_gradient(f, forward, lambda x, d: (2 * d * x,)), None, X[0], contracts=False)
    check_right(report)
    assert report.control is not None
    assert report.control.killed


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (jnp.dot, (np.zeros(0), np.zeros(0))),
        (jnp.dot, (X[0], X[1])),
        (lambda x: jnp.einsum("ij,ij->", x, x), (X,)),
        (lambda x: jnp.einsum("ij,ij->i", x, x), (np.zeros((3, 0)),)),
        (lambda x: jax.lax.reduce_max(x, (1,)), (np.zeros((2, 0)),)),
        (lambda x: jax.lax.reduce_min(x, (1,)), (np.zeros((2, 0), np.int32),)),
        (lambda x: jax.lax.reduce_max(x, (0,)), (np.zeros(0, bool),)),
        (lambda x: jax.lax.reduce_and(x, (0,)), (np.array([6, 3, 7]),)),
        (jax.lax.logistic, (np.array(0.5 + 1j),)),
    ],
)
def test_odd_shapes_in_numpy(f, args):
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    values = dict(zip(jaxpr.invars, args, strict=True))
    for equation in jaxpr.eqns:
        avals = [atom.aval for atom in equation.outvars]
        outputs = evaluate(
            equation.primitive, [values[v] for v in equation.invars], equation.params, [a.dtype for a in avals]
        )
        assert [(y.shape, y.dtype) for y in outputs] == [(aval.shape, aval.dtype) for aval in avals]
        values.update(zip(equation.outvars, outputs, strict=True))
    np.testing.assert_allclose(values[jaxpr.outvars[0]], f(*args), rtol=1e-12)


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_function_inside_shard_map(check_vma):
    mesh, P = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,)), jax.sharding.PartitionSpec

    def backward(residuals, d):
        x, w = residuals
        return d @ w.T, jax.lax.psum(x.T @ d, "d") if check_vma else x.T @ d

    f = with_gradient(lambda x, w: x @ w, lambda x, w: (x @ w, (x, w)), backward)
    sharded = jax.shard_map(f, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=check_vma)
    report = hg.check_custom_vjp(sharded, lambda x, w: x @ w, X, W, contracts=False, transforms=())
    check_right(report)
    assert report.control is not None
    assert sum(report.control.killed.values()) > 100


def test_what_calls_a_function():
    """Each is one step of the backward program, run by JAX from the jaxpr that it holds."""
    A = X[:, :4] + 4 * np.eye(4)

    def backward(x, d):
        d = jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 1.0), (0, d))[1]
        d = jax.lax.cond(d.sum() > 0, lambda: d * jnp.cos(x), lambda: jnp.cos(x) * d)
        d = jax.lax.custom_linear_solve(lambda v: A @ v, A @ d, lambda matvec, b: jnp.linalg.solve(A, b))
        return (jax.checkpoint(lambda d: jax.nn.relu(d) - jax.nn.relu(-d))(d),)

    f = with_gradient(lambda x: jnp.sin(x), lambda x: (jnp.sin(x), x), backward)
    report = hg.check_custom_vjp(f, None, X[:, 0], contracts=False, transforms=())
    check_right(report)
    assert report.control is not None
    assert not any("stopped" in note for note in report.notes)


def test_a_failure_of_the_control_or_the_search_is_a_note(monkeypatch):
    def broken(*args, **options):
        raise KeyError("subfuns")

    monkeypatch.setattr(course, "negative_control", broken)
    report = hg.check_custom_vjp(sine, None, X, **NUMBERS | {"control": True})
    assert (report.verdict, report.control) == ("PASS", None)
    assert report.notes == ("the negative control stopped: KeyError: 'subfuns'",)
    monkeypatch.setattr("handgrad.crosscheck.errors.repair.repair.search", broken)
    wrong = with_gradient(sine.fun, sine.fwd, lambda x, d: (-d * jnp.cos(x),))
    report = hg.check_custom_vjp(wrong, None, X, **NUMBERS)
    assert (report.verdict, report.repair) == ("FAIL", ())
    assert report.notes == ("the search for a repair stopped: KeyError: 'subfuns'",)


def test_a_search_that_runs_out_of_time_says_so():
    wrong = with_gradient(sine.fun, sine.fwd, lambda x, d: (-d * jnp.cos(x),))
    report = hg.check_custom_vjp(wrong, None, X, repair_seconds=0.0, **NUMBERS)
    assert report.notes == ("the search for a repair stopped after 0 s (repair_seconds), before its end",)
    assert "repair_seconds=0.0" in hg.check_custom_vjp(wrong, None, X[:2, :2], repair_seconds=0.0, **NUMBERS).reproduce


def test_a_control_left_out_for_its_size_says_so():
    report = hg.check_custom_vjp(sine, None, np.tile(X, (30, 30)), **NUMBERS | {"control": None})
    assert report.notes == ("the negative control was left out: over 20,000 numbers to compare (control=True runs it)",)


@pytest.mark.parametrize("decorated", [jax.vmap(sine), jax.jit(jax.vmap(sine)), twice, jax.jit(twice), jnp.sin])
def test_only_jit_is_looked_through(decorated):
    """A decorator makes another function of it, whose reference isn't what the custom_vjp function wraps."""
    assert wrapped(decorated) == (None, ())
    report = hg.check_custom_vjp(decorated, None, X)
    assert report.verdict == "INVALID"
    assert report.reason.endswith(
        "must be a jax.custom_vjp function, itself or under jax.jit, or come with a reference"
    )


def test_jit_is_looked_through():
    assert wrapped(jax.jit(jax.jit(sine)))[0] is sine.fun
    assert hg.check_custom_vjp(jax.jit(sine), None, X, **NUMBERS).ok


class Scaled:
    def __init__(self, a):
        self.a = a

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def f(self, x):
        return self.a * jnp.sin(x)

    f.defvjp(lambda self, x: (self.a * jnp.sin(x), x), lambda self, x, d: (self.a * jnp.cos(x) * d,))
    jitted = jax.jit(f, static_argnums=0)


def test_methods():
    scaled = Scaled(3.0)
    assert hg.check_custom_vjp(Scaled.f, None, scaled, X, **NUMBERS).ok
    assert hg.check_custom_vjp(scaled.jitted, None, X, **NUMBERS).ok
    report = hg.check_custom_vjp(scaled.f, None, X)
    assert report.reason == (
        "f is a method, which jax.custom_vjp doesn't bind: pass the object as its first argument, got float64 (4, 6)"
    )


def test_a_list_for_a_tuple():
    """jax.lax.top_k returns a list; jax.grad doesn't compare it with what the forward pass returns, jax.jit does."""

    def forward(x):
        values, places = jax.lax.top_k(x, 2)
        return (values, places), (places, x)

    def backward(residuals, d):
        places, x = residuals
        return (jnp.zeros_like(x).at[places].set(d[0]),)

    f = with_gradient(lambda x: jax.lax.top_k(x, 2), forward, backward)
    report = hg.check_custom_vjp(f, None, X[0], **NUMBERS)
    assert report.ok
    assert report.notes[0].startswith(
        "its forward pass returns a tuple of 2, the function itself a list of 2: jax.grad"
    )
    jax.grad(lambda x: f(x)[0].sum())(X[0])
    with pytest.raises(TypeError, match="structure"):
        jax.grad(lambda x: jax.jit(f)(x)[0].sum())(X[0])
    short = with_gradient(lambda x: jax.lax.top_k(x, 2), lambda x: (forward(x)[0][0], (0, x)), backward)
    reason = hg.check_custom_vjp(short, None, X[0]).reason
    assert reason == "f: its forward pass must return its output's structure, a list of 2, got float64 (2,)"


@pytest.mark.parametrize("accumulate", [True, False])
def test_indices_that_all_differ(accumulate):
    """Whether a gradient is added up shows only where an index occurs twice: a note, since it may never."""
    indices = np.array([4, 0, 2])

    def backward(residuals, d):
        ids, like = residuals
        places = jnp.zeros_like(like).at[ids]
        return (places.add(d) if accumulate else places.set(d)), None

    embed = with_gradient(lambda table, ids: table[ids], lambda table, ids: (table[ids], (ids, table)), backward)
    report = hg.check_custom_vjp(embed, None, RNG.standard_normal((5, 2)), indices, **NUMBERS)
    assert report.ok
    said = [note for note in report.notes if note.startswith("no index in ids occurs twice. Where one does, table is ")]
    assert bool(said) != accumulate
    repeated = hg.check_custom_vjp(embed, None, RNG.standard_normal((5, 2)), np.array([4, 4, 2]), **NUMBERS)
    assert repeated.ok == accumulate


def test_a_gradient_that_is_no_derivative_on_purpose():
    """By hand as by autodiff of the reference, and only differences contradict."""
    rounded = with_gradient(lambda x: jnp.round(x), lambda x: (jnp.round(x), ()), lambda _, d: (d,))

    def through(x):
        return x + jax.lax.stop_gradient(jnp.round(x) - x)

    report = hg.check_custom_vjp(rounded, through, X[:2, :2], **QUICK)
    assert report.verdict == "FAIL"
    assert any(note.endswith("on purpose, pass differences=False") for note in report.notes)
    assert hg.check_custom_vjp(rounded, through, X[:2, :2], **NUMBERS).ok
    alone = hg.check_custom_vjp(rounded, None, X[:2, :2], repair=False, **QUICK)
    assert any(note.endswith("pass a reference with stop_gradient and differences=False") for note in alone.notes)


def test_reproduce_runs():
    """Every setting that was given, in whatever precision the caller works; a lambda by its line."""
    wrong = with_gradient(sine.fun, sine.fwd, lambda x, d: (-d * jnp.cos(x),))
    options: Any = {"draws": 2, "repair": False, "rtol": 1e-3, "argnums": 0, **NUMBERS}
    report = hg.check_custom_vjp(wrong, lambda x: jnp.sin(x), X[:2, :2], dtype="bfloat16", seed=4, **options)
    line, said = report.reproduce.split("  # ")
    assert said.startswith("f is the lambda at test_strange_programs.py:") or said.startswith("reference is the lambda")
    again = eval(f"hg.{line}", {"hg": hg, "np": np, "f": wrong, "reference": jnp.sin, **{wrong.__name__: wrong}})
    assert (again.verdict, again.reason, again.rows) == (report.verdict, report.reason, report.rows)
    assert ", draws=2, differences=False, " in line


def test_an_output_that_is_nowhere_finite():
    """0 / 0 in both: there is no gradient that could be wrong."""
    f = with_gradient(lambda x: x.sum() / 0, lambda x: (x.sum() / 0, x), lambda x, d: (d / 0 * jnp.ones_like(x),))
    report = hg.check_custom_vjp(f, lambda x: jnp.where(False, x, 0).sum() / 0, X, **NUMBERS)
    assert (report.verdict, report.culprit) == ("INCONCLUSIVE", "reference")
    assert report.reason == "the reference is nan at Y: no gradient was compared there"


def test_atol_in_the_contracts():
    """A gradient that is off by less than atol breaks no contract, and keeps none."""
    f = with_gradient(jnp.tanh, lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, d: (1.001 * d * (1 - y * y),))
    report = hg.check_custom_vjp(f, None, X, atol=1e-2, control=False, differences=False)
    assert (report.verdict, report.reason) == ("INCONCLUSIVE", "x: within atol = 0.01: excused, but nothing is shown")
    assert {one.status for one in report.contracts} == {"PASS", "SKIPPED", "INCONCLUSIVE"}
    assert hg.check_custom_vjp(f, None, X, atol=1e-5, control=False, differences=False, repair=False).verdict == "FAIL"


@pytest.mark.slow
def test_modules_of_flax():
    nnx = pytest.importorskip("flax.nnx")

    def forward(module, x):
        return module(x), (module.kernel[...], x)

    def backward(residuals, given):
        (dmodule, _), d = given
        kernel, x = residuals
        dmodule["kernel"][...], dmodule["bias"][...] = x.T @ d, d.sum(0)
        return dmodule, d @ kernel.T

    f = nnx.custom_vjp(lambda module, x: module(x))
    f.defvjp(forward, backward)
    report = hg.check_custom_vjp(f, None, nnx.Linear(6, 3, rngs=nnx.Rngs(0)), X.astype("float32"), **NUMBERS)
    assert report.ok
    assert sorted(row.leaf for row in report.rows) == ["module.bias.value", "module.kernel.value", "x"]


@pytest.mark.slow
def test_modules_of_equinox():
    eqx = pytest.importorskip("equinox")
    linear = eqx.nn.Linear(6, 3, key=jax.random.key(0))

    def backward(residuals, d):
        module, x = residuals
        dmodule = eqx.tree_at(lambda one: (one.weight, one.bias), module, (jnp.outer(d, x), d))
        return dmodule, module.weight.T @ d

    f = with_gradient(lambda module, x: module(x), lambda module, x: (module(x), (module, x)), backward)
    report = hg.check_custom_vjp(f, None, linear, X[0], **NUMBERS)
    assert report.ok
    assert sorted(row.leaf for row in report.rows) == ["module.bias", "module.weight", "x"]
    filtered = eqx.filter_custom_vjp(lambda x, w: x @ w)
    filtered.def_fwd(lambda perturbed, x, w: (x @ w, w))
    filtered.def_bwd(lambda w, d, perturbed, x, _: d @ w.T)
    assert hg.check_custom_vjp(filtered, lambda x, w: x @ w, X, W, argnums=0, **NUMBERS).ok
