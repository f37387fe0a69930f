"""Every transformation broken once, by a gradient that is right without it."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import check_custom_vjp, check_rule

ALONE = {"control": False, "contracts": False, "differences": False}
X = np.random.default_rng(0).standard_normal((6, 4))
ALL = ("jit", "vmap", "scan", "checkpoint", "second_order")
WORDS = ["jit equals eager", "vmap equals a loop", "under lax.scan", "under jax.checkpoint", "second order"]


def forward(X):
    Y = jnp.tanh(X)
    return Y, Y


def backward(Y, dY):
    return (dY * (1 - Y * Y),)


def statuses(report):
    return {contract.name: contract.status for contract in report.contracts}


def broken(report):
    return [contract.name for contract in report.contracts if contract.status == "FAIL"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16, np.complex128])
def test_a_right_rule_keeps_them_all(dtype):
    x = X.astype(dtype) if dtype != np.complex128 else X / 4 + 0.1j * X[::-1]
    report = check_rule(forward, backward, x, transforms=ALL, **ALONE)
    assert report.ok, report
    assert statuses(report) == dict.fromkeys(WORDS, "PASS")


def test_a_right_custom_vjp_keeps_them_all():
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(forward, backward)
    report = check_custom_vjp(f, jnp.tanh, X, transforms=ALL, **ALONE)
    assert report.ok, report
    assert statuses(report) == dict.fromkeys(WORDS, "PASS")


def test_only_those_asked_for():
    assert statuses(check_rule(forward, backward, X, transforms=("scan",), **ALONE)) == {"under lax.scan": "PASS"}
    assert list(statuses(check_rule(forward, backward, X, **ALONE))) == ["jit equals eager"]


def test_keys_and_integers_under_all_of_them():
    def drop(x, key, ids):
        return x * jax.random.bernoulli(key, 0.5, x.shape)

    def dropout(x, key, ids):
        kept = jax.random.bernoulli(key, 0.5, x.shape)
        return x * kept, kept

    def back(kept, dY):
        return dY * kept, None, None

    some = ("vmap", "scan", "checkpoint")
    report = check_rule(dropout, back, X, jax.random.key(3), np.arange(6), reference=drop, transforms=some, **ALONE)
    assert report.ok, report
    assert list(statuses(report)) == WORDS[1:4]
    assert "FAIL" not in statuses(report).values()


def test_jit():
    """Right when traced; off in the tenth digit when run step by step."""

    def eager_is_wrong(Y, dY):
        return (dY * (1 - Y * Y) * (1.0 if isinstance(dY, jax.core.Tracer) else 1 + 1e-10),)

    report = check_rule(forward, eager_is_wrong, X, **ALONE)
    assert (report.verdict, report.rows[0].status) == ("FAIL", "PASS")
    assert broken(report) == ["jit equals eager"]
    assert report.reason.startswith("jit equals eager: X: ")


def test_vmap():
    @jax.custom_batching.custom_vmap
    def double(Y):
        return 2.0 * Y

    double.def_vmap(lambda size, batched, Y: (Y * (2 + 1e-9), True))
    report = check_rule(
        lambda X: (2 * X, ()), lambda _, dY: (double(dY),), X, transforms=("jit", "vmap", "scan"), **ALONE
    )
    assert (report.verdict, report.rows[0].status) == ("FAIL", "PASS")
    assert broken(report) == ["vmap equals a loop"]


def test_vmap_that_raises():
    def back(Y, dY):
        shape = jax.ShapeDtypeStruct(Y.shape, Y.dtype)
        return (jax.pure_callback(lambda Y, dY: np.asarray(dY) * (1 - np.asarray(Y) ** 2), shape, Y, dY),)

    report = check_rule(forward, back, X, transforms=("vmap",), **ALONE)
    assert report.verdict == "FAIL"
    assert broken(report) == ["vmap equals a loop"]
    assert "raised NotImplementedError" in report.reason


@pytest.mark.parametrize(("transform", "words"), [("scan", "under lax.scan"), ("checkpoint", "under jax.checkpoint")])
def test_a_residual_that_leaks(transform, words):
    """Kept in a global instead of the residuals: works until the forward pass is traced apart from the backward."""
    kept = []

    def leaky_forward(X):
        kept.append(jnp.tanh(X))
        return kept[-1], ()

    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(leaky_forward, lambda _, dY: (dY * (1 - kept[-1] ** 2),))
    report = check_custom_vjp(f, jnp.tanh, X, transforms=(transform,), **ALONE)
    assert not report.ok
    if report.verdict == "FAIL":
        assert broken(report) == [words]


def test_a_rule_whose_residual_leaks():
    """A (forward, backward) pair too: a custom_vjp of it would be wrong under every transformation."""
    kept = []

    def leaky_forward(X):
        kept.append(jnp.tanh(X))
        return kept[-1], ()

    report = check_rule(leaky_forward, lambda _, dY: (dY * (1 - kept[-1] ** 2),), X, transforms=ALL, **ALONE)
    assert not report.ok


def test_second_order():
    """Right once; its own derivative misses a term."""

    def stopped(Y, dY):
        return (dY * (1 - jax.lax.stop_gradient(Y) ** 2),)

    report = check_rule(forward, stopped, X, transforms=ALL, **ALONE)
    assert (report.verdict, report.rows[0].status) == ("FAIL", "PASS")
    assert broken(report) == ["second order"]


def test_second_order_of_a_custom_vjp_is_missing():
    @jax.custom_jvp
    def once(Y):
        return Y

    once.defjvp(lambda primals, tangents: (primals[0], jnp.zeros_like(tangents[0])))
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(forward, lambda Y, dY: (dY * (1 - once(Y) ** 2),))
    report = check_custom_vjp(f, jnp.tanh, X, transforms=("second_order",), **ALONE)
    assert broken(report) == ["second order"]


def test_second_order_of_the_reference_needs_one():
    """Where the reference itself can't be differentiated twice, nobody is to blame."""
    inner = jax.custom_vjp(lambda X: X**3)

    def pull(X, dY):
        shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
        return (jax.pure_callback(lambda X, dY: np.asarray(3 * X**2 * dY), shape, X, dY, vmap_method="broadcast_all"),)

    inner.defvjp(lambda X: (X**3, X), pull)
    report = check_rule(
        lambda X: (X**3, X), lambda X, dY: (3 * X**2 * dY,), X, reference=inner, transforms=("second_order",), **ALONE
    )
    assert report.verdict != "FAIL", report


def test_what_needs_numbers_is_skipped():
    def numpy_forward(X):
        return jnp.asarray(np.tanh(np.asarray(X))), np.asarray(X)

    def numpy_backward(X, dY):
        return (jnp.asarray(np.asarray(dY) * (1 - np.tanh(X) ** 2)),)

    report = check_rule(numpy_forward, numpy_backward, X, reference=jnp.tanh, transforms=ALL, **ALONE)
    assert report.ok, report
    assert statuses(report) == dict.fromkeys(WORDS, "SKIPPED")


def test_one_device_is_skipped(monkeypatch):
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    report = check_rule(forward, backward, X, transforms=("shard",), **ALONE)
    assert report.ok
    assert statuses(report) == {"sharded equals unsharded": "SKIPPED"}
    assert "XLA_FLAGS=--xla_force_host_platform_device_count=8" in report.contracts[0].detail


@pytest.mark.parametrize("given", ["jit", ("jitt",), ("jit", 3)])
def test_unknown_names(given):
    with pytest.raises(ValueError, match="transforms must be a tuple of some of jit, vmap, scan"):
        check_rule(forward, backward, X, transforms=given)


EIGHT = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.experimental.custom_partitioning import custom_partitioning
    from jax.sharding import NamedSharding, PartitionSpec
    from handgrad.crosscheck import check_rule
    assert jax.device_count() == 8
    rng = np.random.default_rng(0)

    @custom_partitioning
    def total(X, D):
        return X.T @ D

    def partition(mesh, given, result):
        spec = PartitionSpec(*(given[0].sharding.spec or (None,))[:1])
        left = NamedSharding(mesh, PartitionSpec(*spec, None))
        # What each device has is only its part of the sum.
        return mesh, lambda X, D: X.T @ D, NamedSharding(mesh, PartitionSpec()), (left, left)

    total.def_partition(
        partition=partition,
        infer_sharding_from_operands=lambda mesh, given, result: NamedSharding(mesh, PartitionSpec()),
        sharding_rule="b i, b o -> i o",
    )

    def forward(X, W):
        return X @ W, (X, W)

    def right(residuals, dY):
        X, W = residuals
        return dY @ W.T, X.T @ dY

    def unsummed(residuals, dY):
        X, W = residuals
        return dY @ W.T, total(X, dY)

    for batch in (16, 12, 5):
        X, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((batch, 4), (4, 3)))
        for backward in (right, unsummed):
            r = check_rule(forward, backward, X, W, transforms=("shard",), control=False, contracts=False)
            print(batch, backward.__name__, r.verdict, [row.status for row in r.rows], r.contracts[0].status)
            print(r.contracts[0].detail)
"""


def test_eight_devices():
    """A backward pass that forgets to add the devices' parts up is right on one device."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EIGHT)],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "16 right PASS ['PASS', 'PASS'] PASS"
    assert lines[2] == "16 unsummed FAIL ['PASS', 'PASS'] FAIL"
    assert lines[3].startswith("W: ")
    assert lines[4] == "12 right PASS ['PASS', 'PASS'] PASS"
    assert lines[6] == "12 unsummed FAIL ['PASS', 'PASS'] FAIL"
    assert lines[8] == "5 right PASS ['PASS', 'PASS'] PASS"


def test_what_rounding_leaves_of_a_saturated_softmax_is_no_difference():
    """The gradient of scores in the thousands is 0; step by step it is what two orders of a sum differ by."""
    S, V = 1e3 * X, 1e3 * np.random.default_rng(1).standard_normal((4, 40))

    def attend(S, V):
        return jax.nn.softmax(S) @ V

    def pull(residuals, dY):
        S, V = residuals
        P = jax.nn.softmax(S)
        dP, order = dY @ V.T, jnp.arange(40)[::-1]
        eager = not isinstance(dY, jax.core.Tracer)
        rows = jnp.sum(dY[:, order] * (P @ V)[:, order], 1) if eager else jnp.sum(P * dP, 1)
        return P * (dP - rows[:, None]), P.T @ dY

    report = check_rule(lambda *a: (attend(*a), a), pull, S, V, reference=attend, **ALONE)
    assert report.ok, report


def test_a_gradient_that_is_small_beside_its_output_is_compared():
    """Y = 1e6 + x / 10 in float32, whose gradient is below a rounding of Y, and off by a half when run step by step."""

    def pull(_, dY):
        return (dY / (10 if isinstance(dY, jax.core.Tracer) else 20),)

    report = check_rule(lambda x: (1e6 + x / 10, ()), pull, X.astype(np.float32), **ALONE)
    assert broken(report) == ["jit equals eager"]
