"""The comparison sees what is wrong, where, and by how much."""

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import Job, compare, compare_all, relative_error


def right(x):
    return {"small": 1e-3 * x, "large": x**2}


def wrong(x):
    return {"small": 1e-3 * x * (1 + 1e-6), "large": x**2}


X = jnp.array([1.0, 2.0])


def test_the_worst_leaf_by_name():
    comparison = compare(Job("job", wrong, right, [(X,)]))
    assert (comparison.name, comparison.leaf, comparison.dtype) == ("job", "small", "float64")
    assert comparison.error == pytest.approx(1e-6, rel=1e-6)


def test_the_worst_draw():
    off_at_two = Job("job", lambda x: right(x) | {"large": x**2 + (x == 2)}, right, [(jnp.ones(2),), (X,), (3 * X,)])
    assert compare(off_at_two) == ("job", 0.25, "large", "float64")


def test_agreement_is_zero():
    assert compare(Job("job", right, right, [(X,)])).error == 0


def test_nan_is_the_worst():
    assert np.isnan(compare(Job("job", lambda x: right(x) | {"small": x * jnp.nan}, right, [(X,)])).error)


def test_another_structure():
    with pytest.raises(ValueError, match="job: "):
        compare(Job("job", lambda x: x, right, [(X,)]))


def test_workers_keep_the_order_and_the_dtype():
    jobs = [Job(str(i), right, right, [(i * X,)]) for i in range(5)]
    rows = list(compare_all(jobs, workers=2))
    assert [row.name for row in rows] == list("01234")
    assert {row.dtype for row in rows} == {"float64"}


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [([2.0, 1.0], [2.0, 2.0], 0.5), ([0.0], [0.0], 0.0), ([1.0], [0.0], np.inf), ([], [], 0.0)],
)
def test_relative_error(value, reference, expected):
    assert relative_error(value, reference) == expected
