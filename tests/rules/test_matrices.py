"""What all rules on matrices have in common: the input that they refuse, empty batches, infinite elements."""

import jax
import numpy as np
import pytest
from rules.linear_algebra.matrices import ANY, SQUARE, SYSTEMS, B, X, passes, run

import handgrad as hg
from handgrad import rules


def refusal(function, *arguments):
    with pytest.raises(hg.InputError) as raised:
        function(*arguments)
    return str(raised.value)


@pytest.mark.parametrize("op", SQUARE)
def test_a_matrix_that_is_not_square(op):
    forward = getattr(rules, op).forward
    message = f"{op}_forward: X must be square, (batch, ..., n, n), got float64 (2, 3, 4)"
    assert refusal(forward, np.ones((2, 3, 4))) == message
    message = f"{op}_forward: X must have shape (batch, ..., n, n), got float64 (3, 3)"
    assert refusal(forward, np.ones((3, 3))) == message


@pytest.mark.parametrize("op", ANY)
def test_a_matrix_without_a_batch(op):
    message = f"{op}_forward: X must have shape (batch, ..., m, n), got float64 (3, 4)"
    assert refusal(getattr(rules, op).forward, np.ones((3, 4))) == message


@pytest.mark.parametrize("op", SYSTEMS)
def test_two_sides_that_do_not_match(op):
    forward = getattr(rules, op).forward
    message = f"{op}_forward: A must be square, (batch, ..., n, n), got float64 (2, 3, 4)"
    assert refusal(forward, np.ones((2, 3, 4)), B) == message
    message = f"{op}_forward: B must have shape (batch, ..., n, k), got float64 (2, 3)"
    assert refusal(forward, X, np.ones((2, 3))) == message
    for shape in ((2, 4, 2), (3, 3, 2), (1, 3, 2), (2, 1, 3, 2)):
        message = f"{op}_forward: B must have shape (2, 3, {shape[-1]}) to match A (2, 3, 3), got float64 {shape}"
        assert refusal(forward, X, np.ones(shape)) == message
    assert "B must have a floating-point dtype, got int64" in refusal(forward, X, np.ones((2, 3, 2), int))


@pytest.mark.parametrize(("op", "names"), [("log_determinant", "dS, dY"), ("qr", "dQ, dR"), ("svd", "dU, dS, dVt")])
def test_a_cotangent_for_each_output(op, names):
    forward, backward = getattr(rules, op)
    Y, residuals = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(forward, X))
    for wrong, got in ((np.ones((2, 3, 3)), "float64 (2, 3, 3)"), (Y[:1], "tuple"), (list(Y), "list")):
        message = f"{op}_backward: the cotangent must be a tuple ({names}), got {got}"
        assert refusal(backward, residuals, wrong) == message
    for i, name in enumerate(names.split(", ")):
        dY = tuple(np.ones((1, *y.shape)) if i == j else y for j, y in enumerate(Y))
        assert f"{name} must be the cotangent of {name[1:]}, float64 {Y[i].shape}" in refusal(backward, residuals, dY)


def test_an_empty_batch():
    arguments = {op: (X[:0], B[:0]) if op in SYSTEMS else (X[:0],) for op in (*SQUARE, *ANY, *SYSTEMS)}

    def empty(op):
        Y, residuals = getattr(rules, op).forward(*arguments[op])
        return getattr(rules, op).backward(residuals, Y)

    found = run(lambda: {op: empty(op) for op in arguments})
    for op, cotangents in found.items():
        assert [c.shape for c in cotangents] == [a.shape for a in arguments[op]], op


def test_an_infinite_element_makes_its_matrix_nan():
    """LAPACK's SVD would not return."""
    M = np.stack([np.eye(3), np.eye(3)])
    M[0, 0, 1] = np.inf

    def gradients(M):
        (_, S, _), _ = rules.svd_forward(M)
        return S, passes("determinant", np.ones(2), M)[1], passes("nuclear_norm", np.ones(2), M)[1]

    for found in run(gradients, M):
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()
