"""Looking for inputs that fail, and shrinking what is found to what fits in a line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import check_rule

X = np.abs(np.random.default_rng(0).standard_normal((4, 3)))
QUICK = {"control": False, "contracts": False, "transforms": (), "search": True}


def tanh_forward(X):
    return jnp.tanh(X), X


def tanh_backward(X, dY, wrong=False):
    return (jnp.where(wrong, 2.0, 1.0) * dY * (1 - jnp.tanh(X) ** 2),)


def wrong_where(condition):
    def backward(X, dY):
        return tanh_backward(X, dY, condition(X))

    return backward


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        pytest.param(lambda X: X < 0, "negative", marks=pytest.mark.slow),
        (lambda X: X > 100, "huge"),
        pytest.param(lambda X: (X == 0) | (X == -0.0), "tied", marks=pytest.mark.slow),
        (lambda X: X.shape[0] == 1, "of size 1 for 4"),
    ],
)
def test_what_the_inputs_given_dont_show(condition, kind):
    if kind == "huge":  # tanh has no slope there
        forward, backward = lambda X: (X * X, X), lambda X, dY: (jnp.where(condition(X), 3.0, 2.0) * X * dY,)
    else:
        forward, backward = tanh_forward, wrong_where(condition)
    small = X[:, :2]
    assert check_rule(forward, backward, small, **QUICK | {"search": False}).ok
    report = check_rule(forward, backward, small, **QUICK)
    assert report.verdict == "FAIL", report
    assert f"found by search: inputs {kind}, shrunk to the smallest that fail" in report.notes


def test_nothing_to_find():
    report = check_rule(tanh_forward, tanh_backward, X, **QUICK)
    assert report.ok
    assert report.notes[-1].startswith("searched: inputs positive, negative, saturated, huge, tiny, tied")


def test_a_failure_is_shrunk_to_one_line_that_fails_again():
    def linear_forward(X, W):
        return X @ W, (X, W)

    def linear_backward(residuals, dY):
        X, W = residuals
        return dY @ W.T, X.T @ dY / X.shape[0]

    report = check_rule(linear_forward, linear_backward, X, np.ones((3, 2)), seed=5, **QUICK)
    assert report.verdict == "FAIL"
    assert report.reproduce.startswith("check_rule(linear_forward, linear_backward, np.array([[")
    assert ", seed=5, contracts=False, " in report.reproduce, "the settings that were given"
    assert {row.leaf: row.shape for row in report.rows} == {"X": (2, 1), "W": (1, 1)}
    names = {"check_rule": check_rule, "linear_forward": linear_forward, "linear_backward": linear_backward}
    again = eval(report.reproduce, names | {"np": np})
    assert again.verdict == "FAIL"
    assert {row.leaf for row in again.rows if row.status == "FAIL"} == {"W"}


def test_labels_stay_in_range():
    """Cutting the classes would put labels out of range: the batch is cut, and they are not."""

    def forward(Z, labels):
        return -jnp.take_along_axis(jax.nn.log_softmax(Z), labels[:, None], 1)[:, 0], (Z, labels)

    def backward(residuals, dY):
        Z, labels = residuals
        return (jax.nn.softmax(Z) - jax.nn.one_hot(labels, Z.shape[1])) * dY[:, None] * 2, None

    Z = np.random.default_rng(1).standard_normal((4, 3))
    report = check_rule(forward, backward, Z, np.array([0, 2, 1, 2]), **QUICK)
    assert report.rows[0].shape == (1, 3)
    assert report.rows[0].diagnosis == "2 × too large"
