"""The conformance suite on another library: what is right passes, what is wrong fails, what is absent is skipped."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import conformance
from handgrad.cases import CASES
from handgrad.checks import InputError

LIBRARY = """
import jax, jax.numpy as jnp


def layer_norm(X, gamma, beta, *, eps=1e-5):
    centered = X - jnp.mean(X, -1, keepdims=True)
    Y = centered * jax.lax.rsqrt(jnp.mean(centered**2, -1, keepdims=True) + eps)
    Y = Y if gamma is None else Y * jnp.broadcast_to(gamma, Y.shape)
    return Y + jnp.broadcast_to(beta, Y.shape)


@jax.custom_vjp
def softmax(X):
    return jax.nn.softmax(X)


def softmax_forward(X):
    P = jax.nn.softmax(X)
    return P, P


def softmax_backward(P, dP):
    return (P * (dP - jnp.mean(P * dP, axis=-1, keepdims=True)),)


softmax.defvjp(softmax_forward, softmax_backward)


@jax.custom_jvp
def relu(X):  # with a slope of 1 at 0
    return jnp.maximum(X, 0)


relu.defjvp(lambda primals, tangents: (relu(*primals), jnp.where(primals[0] >= 0, tangents[0], 0)))

table = {"layer_norm": layer_norm, "softmax": softmax, "relu": relu}
"""


def conform(pytester, monkeypatch, *options):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(pytester.path)
    pytester.makepyfile(mylib=LIBRARY)
    return pytester.runpytest("-p", "handgrad_pytest", "--pyargs", *options)


def test_a_library(pytester, monkeypatch):
    """layer_norm is right on all rows, but one that omits what it needs and one that shows nothing; softmax is wrong on
    each of its own; relu has another slope at its kink, and may."""
    run = conform(pytester, monkeypatch, "handgrad.conformance", "--ops", "mylib:table", "-v")
    outcomes = re.findall(r"^handgrad\.conformance::(\w+)\[(.*)\] (\w+)", run.stdout.str(), re.MULTILINE)
    expected = {"layer_norm": "PASSED", "softmax": "FAILED", "relu": "PASSED"}
    skipped = [("layer_norm", "tokens eps=0.1"), ("layer_norm", "one-feature")]
    assert outcomes == [
        (op, name, "SKIPPED" if (op, name) in skipped else outcome)
        for op, outcome in expected.items()
        for name in [str(row)[len(op) + 1 : -1] for row in conformance.rows({op: lambda *args, **options: None})]
    ]
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    run.stdout.fnmatch_lines(["FAIL  softmax[[]rows]: X: *", "culprit: hand", "settings: *"])
    assert "All traceback entries are hidden" not in run.stdout.str()


def test_what_is_no_table(pytester, monkeypatch):
    """Usage, before anything is collected."""
    for spec, says in {
        "": "written as package.module:table, got ''",
        "mylib:tables": "mylib:tables can't be imported: AttributeError",
        "nolib:table": "nolib:table can't be imported: ModuleNotFoundError: No module named 'nolib'",
    }.items():
        run = conform(pytester, monkeypatch, "handgrad.conformance::softmax", f"--ops={spec}")
        assert run.ret == pytest.ExitCode.USAGE_ERROR
        run.stderr.fnmatch_lines([f"ERROR: conformance: ops *{says}*"])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([jnp.tanh], "ops must be a dict from names of operations to functions, got"),
        ({"soft_max": jnp.tanh}, "ops names 'soft_max', which is no operation of ours; near: softmax, log_softmax"),
        ({"tanh": 3}, "ops['tanh'] must be a function, or (function, adapter), got 3"),
        ({"max_pool": lambda X: X}, "no row of max_pool can be checked: <lambda> takes no window"),
    ],
)
def test_tables_that_are_refused(table, says):
    with pytest.raises(InputError, match=re.escape(says)):
        conformance.rows(table)


def rnn(X, W, U, b, H0, *, reverse=False):
    assert not reverse
    if X.ndim:
        raise NotImplementedError("sequences, so far")


def passing_on(f, X, *inputs, **options):
    return f(X, *inputs, **options)


def renaming(f, X, W, U, b, H0, lengths=None, *, backwards=False, activation="tanh", **options):
    return f(X, W, U, b, H0, **options)


def test_rows_that_a_function_does_not_take():
    """An option or an optional input without a parameter, of the function or the adapter; one that isn't implemented; a
    dtype that isn't the row's."""
    raised = "rnn raised NotImplementedError: sequences, so far"
    entries = {
        rnn: [raised, "rnn takes no lengths and no activation", "rnn takes no lengths and no truncate"],
        (rnn, passing_on): [raised, "rnn takes no lengths and no activation", "rnn takes no lengths and no truncate"],
        (rnn, renaming): [raised, "", "rnn takes no truncate"],
    }
    for entry, reasons in entries.items():
        assert [row.unsupported() for row in conformance.rows({"rnn": entry})] == reasons
    ill = next(row for row in conformance.rows({"cholesky": jax.lax.linalg.cholesky}) if row.case.name == "ill")
    assert ill.unsupported("float32") == ""
    assert ill.unsupported("bfloat16") == "these inputs of cholesky are not for bfloat16"


def test_every_row_has_its_id():
    ops = {case.op: lambda *args, **options: np.zeros(()) for case in CASES}
    ids = [str(row) for row in conformance.rows(ops)]
    assert len(set(ids)) == len(CASES)
    assert "leaky_relu[rows negative_slope=0.3]" in ids
