"""Every promise broken once, by a gradient that is otherwise right wherever the rows look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import check_function, check_rule

ALONE = {"control": False, "transforms": (), "differences": False}
X = np.random.default_rng(0).standard_normal((6, 8))  # 48 outputs: no Jacobian, random cotangents alone


def forward(X):
    Y = jnp.tanh(X)
    return Y, Y


def backward(Y, dY):
    return (dY * (1 - Y * Y),)


def broken(report):
    """The names of the promises that were broken."""
    return [contract.name for contract in report.contracts if contract.status == "FAIL"]


def detail(report, name):
    return next(contract.detail for contract in report.contracts if contract.name == name)


def test_a_right_rule_keeps_them_all():
    report = check_rule(forward, backward, X, **ALONE)
    assert report.ok, report
    assert {contract.name: contract.status for contract in report.contracts} == {
        "forward equals the reference": "PASS",
        "a zero cotangent gives zero": "PASS",
        "linear in the cotangent": "PASS",
        "adjoint: ⟨dY, J v⟩ = ⟨Jᵀ dY, v⟩": "PASS",
        "called twice gives the same bits": "PASS",
        "no state kept between calls": "PASS",
        "residuals stay as they were": "PASS",
        "a NaN stays in its example": "PASS",
        "a batch of one": "PASS",
        "an empty batch": "PASS",
    }


def test_none_are_looked_at_unasked():
    assert check_rule(forward, backward, X, contracts=False, **ALONE).contracts == ()


@pytest.mark.parametrize("size", [1e-9, 0.5])
def test_forward_differs_from_the_reference(size):
    report = check_rule(forward, backward, X, reference=lambda X: jnp.tanh(X).at[2, 3].add(size), **ALONE)
    assert (report.verdict, report.culprit) == ("FAIL", "forward")
    assert report.reason.startswith("the forward pass differs from the reference: Y[2, 3] is ")
    assert broken(report) == ["forward equals the reference"]


@pytest.mark.parametrize(("factor", "verdict"), [(1, "PASS"), (1 + 1e-9, "FAIL")])
def test_a_reference_that_cancels_is_no_difference(factor, verdict):
    """e^x − 1 − x near 0, by terms of size 1: the reference is off by 1e-16, which is 1e-4 of the value. A factor that
    is wrong shows all the same, where the digits are there."""

    def forward(X):
        return 0.1 * X + factor * (jnp.expm1(X) - X), X

    def cancels(X):
        return 0.1 * X + jnp.exp(X) - 1 - X

    at = 1e-6 * X if factor == 1 else X
    report = check_rule(forward, lambda X, dY: (dY * (0.1 + factor * jnp.expm1(X)),), at, reference=cancels, **ALONE)
    assert report.verdict == verdict, report


def test_forward_of_another_dtype():
    report = check_rule(lambda X: (jnp.tanh(X).astype(np.float32), X), backward, X, reference=jnp.tanh, **ALONE)
    assert (report.verdict, report.culprit) == ("FAIL", "forward")


def test_forward_nan_where_the_reference_is_finite():
    report = check_rule(lambda X: (forward(X)[0].at[1, 1].set(jnp.nan), forward(X)[1]), backward, X, reference=jnp.tanh)
    assert (report.verdict, report.culprit) == ("FAIL", "forward")
    assert "Y[1, 1] is nan" in report.reason


def test_zero_cotangent():
    def affine(Y, dY):
        return (dY * (1 - Y * Y) + jnp.where(jnp.all(dY == 0), 1e-300, 0.0),)

    report = check_rule(forward, affine, X, **ALONE)
    assert report.verdict == "FAIL"
    assert broken(report) == ["a zero cotangent gives zero"]
    assert report.reason == "a zero cotangent gives zero: X is up to 1e-300"


def test_not_linear():
    """Right, unless an element of the cotangent is exactly zero, as no random one is."""

    def sometimes(Y, dY):
        return (dY * (1 - Y * Y) * jnp.where(jnp.any(dY == 0), 1 + 1e-9, 1.0),)

    report = check_rule(forward, sometimes, X, **ALONE)
    assert report.verdict == "FAIL"
    assert broken(report) == ["linear in the cotangent"]
    assert "two parts of dY add up to" in report.reason


def test_not_homogeneous():
    """Right, unless the cotangent is large: −2 dY is."""
    largest = 2 * max(np.abs(np.random.default_rng(0).standard_normal(10_000)).max() / 2, 1)

    def clipped(Y, dY):
        return (jnp.clip(dY, -largest, largest) * (1 - Y * Y),)

    report = check_rule(forward, clipped, np.tile(X, (8, 1)), **ALONE)
    assert report.verdict == "FAIL"
    assert broken(report) == ["linear in the cotangent"]
    assert "−2 dY gives" in report.reason


def test_adjoint():
    """The truth itself is wrong, by a transpose that isn't one: only forward mode can tell."""
    W = np.random.default_rng(1).standard_normal((8, 8))

    def reference(X):
        return jax.custom_derivatives.linear_call(lambda W, X: X @ W, lambda W, dY: dY @ W, W, X)

    report = check_rule(lambda X: (X @ W, ()), lambda _, dY: (dY @ W,), X, reference=reference, **ALONE)
    assert report.rows[0].status == "PASS"
    assert report.verdict == "FAIL"
    assert broken(report) == ["adjoint: ⟨dY, J v⟩ = ⟨Jᵀ dY, v⟩"]


def test_no_forward_mode_is_skipped():
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(forward, backward)
    report = check_rule(forward, backward, X, reference=f, **ALONE)
    assert report.ok
    assert "no forward mode" in detail(report, "adjoint: ⟨dY, J v⟩ = ⟨Jᵀ dY, v⟩")


def noisy(dX):
    state = np.random.default_rng(0)

    def add(array):
        return np.asarray(array) * (1 + 2**-52 * state.integers(-1, 2, array.shape))

    return jax.pure_callback(add, jax.ShapeDtypeStruct(dX.shape, dX.dtype), dX, vmap_method="sequential")


def last_bits(Y, dY):
    return (noisy(dY * (1 - Y * Y)),)


def test_two_answers_in_the_last_bit_are_a_note():
    report = check_rule(forward, last_bits, X, **ALONE)
    assert report.ok, report
    assert any(note.startswith("called twice, it gives other last bits: X differs by ") for note in report.notes)


def test_two_answers_in_the_last_bit_where_none_may_differ():
    report = check_rule(forward, last_bits, X, nondeterminism_tolerance=0.0, **ALONE)
    assert (report.verdict, report.culprit) == ("FAIL", "nondeterminism")
    assert report.reason.startswith("called twice, it gives two answers: X differs by ")
    assert broken(report) == ["called twice gives the same bits"]


def test_grossly_noisy_is_called_nondeterministic():
    def gross(array, state=np.random.default_rng(0)):
        return np.asarray(array) * (1 + 1e-2 * state.standard_normal(array.shape))

    def backward(Y, dY):
        dX = dY * (1 - Y * Y)
        return (jax.pure_callback(gross, jax.ShapeDtypeStruct(dX.shape, dX.dtype), dX),)

    report = check_rule(forward, backward, X, **ALONE)
    assert (report.verdict, report.culprit) == ("FAIL", "nondeterminism")


def test_residuals_changed():
    def forward(X):
        Y = np.tanh(np.asarray(X))
        return jnp.asarray(Y), [Y]

    def spoils(residuals, dY):
        dX = np.asarray(dY) * (1 - residuals[0] ** 2)
        residuals[0] *= 2
        return (jnp.asarray(dX),)

    report = check_rule(forward, spoils, X, reference=jnp.tanh, **ALONE)
    assert report.rows[0].status == "PASS"
    assert broken(report) == ["residuals stay as they were"]
    assert report.reason == "residuals stay as they were: 1 of 1 arrays changed"
    assert "needs concrete numbers" in report.notes[0]


def test_residuals_emptied():
    """The list is the residuals' too, not only the arrays in it."""

    def forward(X):
        Y = jnp.tanh(X)
        return Y, [Y]

    report = check_rule(forward, lambda residuals, dY: (dY * (1 - residuals.pop() ** 2),), X, **ALONE)
    assert broken(report) == ["residuals stay as they were"]


def test_nan_reaches_another_example():
    report = check_rule(forward, lambda Y, dY: (dY * (1 - Y * Y) + 0 * Y.sum(),), X, **ALONE)
    assert report.verdict == "FAIL"
    assert broken(report) == ["a NaN stays in its example"]
    assert report.reason == "a NaN stays in its example: NaN in X[0] makes 40 more elements of X NaN"


@pytest.mark.parametrize(("size", "name"), [(1, "a batch of one"), (0, "an empty batch")])
@pytest.mark.parametrize("kind", ["shape", "dtype"])
def test_small_batches(size, name, kind):
    def backward(Y, dY):
        dX = dY * (1 - Y * Y)
        wrong = dX[:, :1] if kind == "shape" else dX.astype(np.float32)
        return (wrong if len(Y) == size else dX,)

    report = check_rule(forward, backward, X, **ALONE)
    assert broken(report) == [name]


def test_a_batch_of_one_of_wrong_numbers():
    report = check_rule(forward, lambda Y, dY: (dY * (1 - Y * Y) * (1 + 1e-9 * (len(Y) == 1)),), X, **ALONE)
    assert broken(report) == ["a batch of one"]


def test_a_batch_of_one_that_the_reference_takes_and_the_rule_does_not():
    """It is no gradient there, whatever it is elsewhere."""

    def backward(Y, dY):
        if len(Y) == 1:
            raise IndexError("no second row")
        return (dY * (1 - Y * Y),)

    report = check_rule(forward, backward, X, **ALONE)
    assert "IndexError" in detail(report, "a batch of one") or "no second row" in detail(report, "a batch of one")


def test_a_size_one_axis_that_isnt_the_batch():
    X = np.random.default_rng(2).standard_normal((5, 1, 3))
    report = check_rule(forward, backward, X, **ALONE)
    assert report.ok, report


def test_scalar_function_has_no_batch_of_its_own():
    """The mean over a batch isn't the same function on one example of it; it's still right there."""
    report = check_function(lambda X: jnp.mean(X**2), lambda X: 2 * X / X.size, X, **ALONE)
    assert report.ok, report
    assert broken(report) == []
