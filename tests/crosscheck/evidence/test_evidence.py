"""The evidence: cotangents drawn by name, the truth, the noise of neighbors, the floor."""

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck.evidence.collect import collect
from handgrad.crosscheck.evidence.draws import cotangents
from handgrad.crosscheck.evidence.noise import neighbors, nudged
from handgrad.crosscheck.subject.arguments import largest
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.programs import Programs

rng = np.random.default_rng(0)
X = rng.standard_normal((4, 3))


def programs(forward, backward, *args, reference=None, dtype=None):
    return Programs(from_rule(None, forward, backward, args, reference, dtype))


def tanh(scale=1.0):
    return (lambda X: (jnp.tanh(X), X)), (lambda X, dY: (scale * dY * (1 - jnp.tanh(X) ** 2),))


def outputs(**leaves):
    """A rule with these named outputs, each X times a number."""
    return programs(
        lambda X: ({name: size * X for name, size in leaves.items()}, ()),
        lambda _, dY: (sum(size * dY[name] for name, size in leaves.items()),),
        X,
    )


def test_another_leaf_rerolls_none_of_the_others():
    two, three = outputs(b=1.0, c=1.0), outputs(a=1.0, b=1.0, c=1.0)
    (first, *_), *_ = cotangents(two, 0, 3, [X])
    (second, *_), *_ = cotangents(three, 0, 3, [X])
    np.testing.assert_array_equal(first[0], second[1])
    np.testing.assert_array_equal(first[1], second[2])
    assert not np.array_equal(first[0], first[1])


def test_each_is_scaled_by_its_leaf_and_tried_alone():
    p = outputs(big=1e3, small=1e-3)
    dYs, count, groups = cotangents(p, 0, 3, [X])
    assert count == 3 + 2
    big, small = np.abs(dYs[0][0]).max(), np.abs(dYs[0][1]).max()
    assert 1e5 < small / big < 1e7
    alone = [[bool(dY.any()) for dY in draw] for draw in dYs[3:count]]
    assert alone == [[True, False], [False, True]]
    rows = [tuple(range(5 + 12 * j, 17 + 12 * j)) for j in range(2)]
    assert groups == {None: (0, 1, 2), 0: (3, *rows[0]), 1: (4, *rows[1])}


def test_draws_and_seeds_differ():
    p = programs(*tanh(), X)
    (one, two, *_), *_ = cotangents(p, 0, 2, [X])
    (other, *_), *_ = cotangents(p, 1, 2, [X])
    assert len({a[0].tobytes() for a in (one, two, other)}) == 3
    (again, *_), *_ = cotangents(p, 0, 5, [X])
    np.testing.assert_array_equal(one[0], again[0])


@pytest.mark.parametrize(("size", "whole"), [(40, True), (41, False), (1, False)])
def test_the_whole_jacobian_of_a_small_output(size, whole):
    p = programs(*tanh(), np.linspace(0.1, 1, size))
    dYs, count, groups = cotangents(p, 0, 3, p.problem.leaves)
    assert count == 3
    assert len(dYs) == 3 + (size if whole else 0)
    assert groups == {None: tuple(range(len(dYs)))}
    if whole:
        np.testing.assert_array_equal(np.stack([dY[0] for dY in dYs[3:]]), np.eye(size))


def test_a_complex_output_has_two_rows_for_each_element():
    z = X + 1j
    p = programs(lambda z: (z * z, z), lambda z, dY: (2 * z * dY,), z)
    dYs, count, groups = cotangents(p, 0, 3, [z])
    assert len(dYs) == 3 + 24
    assert np.sum([dY[0] for dY in dYs[3:]]) == 12 * (1 + 1j)
    assert (count, groups) == (3, {None: tuple(range(27))})


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16])
def test_neighbors_are_one_unit_in_the_last_place_away(dtype):
    # Near each power of two, and the numbers right below it, where the spacing halves.
    a = np.concatenate([X.ravel(), [1.0, 2.0, 0.5, 1.9921875, -4.0, 3.984375]]).astype(dtype)
    near = np.stack([nudged(seed, a) for seed in range(50)])
    assert near.dtype == a.dtype
    u = float(jnp.finfo(dtype).eps)
    spacing = u * 2.0 ** np.floor(np.log2(np.abs(a.astype(float))))
    moves = np.abs(near.astype(float) - a.astype(float)) / spacing
    assert moves.max() == 1.0
    assert 0.4 < np.mean(moves > 0) < 0.8
    assert set(nudged(1, np.zeros(9, dtype)).astype(float)) == {0.0}
    tied = nudged(3, np.repeat(a, 2)).reshape(-1, 2)
    assert np.array_equal(tied[:, 0], tied[:, 1])


def test_integers_have_no_neighbors():
    n = np.arange(4)
    assert nudged(0, n) is n


def test_the_largest_float16_has_a_neighbor_without_a_warning():
    a = np.full(3, 65504.0, np.float16)
    near = np.stack([nudged(seed, a) for seed in range(20)]).astype(float)
    assert np.isfinite(near).all()
    assert near.min() < 65504


def test_largest():
    assert largest(np.array([1.0, -3.0, np.nan, np.inf])) == 3.0
    assert largest(np.zeros((0, 3))) == 0.0
    assert largest(np.array([np.nan])) == 0.0
    assert largest(np.array([3 + 4j])) == 5.0


def test_what_is_collected():
    evidence = collect(programs(*tanh(1.5), X.astype(np.float32)), [X.astype(np.float32)])
    (leaf,) = evidence.wanted
    x = X.astype(np.float32).astype(float)
    dY = evidence.dYs[0][0].astype(float)
    np.testing.assert_allclose(leaf.truth[0], dY * (1 - np.tanh(x) ** 2), rtol=1e-12)
    np.testing.assert_allclose(leaf.autodiff[0], leaf.truth[0], rtol=1e-4)
    np.testing.assert_allclose(evidence.hand[0][0], 1.5 * leaf.truth[0], rtol=1e-4)
    assert leaf.truth.shape == (3 + 12, 4, 3)
    assert leaf.scale == np.abs(leaf.truth).max()
    assert leaf.autodiff_error == np.abs(leaf.autodiff - leaf.truth).max()
    assert leaf.tolerance == 3 * max(leaf.autodiff_error, leaf.noise) + leaf.floor
    assert 1e-8 < leaf.power < 1e-5
    assert evidence.batch == 4
    part = evidence.random_part()
    assert (len(part.dYs), len(part.hand), len(part.wanted[0].truth)) == (3, 3, 3)


def test_a_gross_error_does_not_change_the_tolerance():
    one, two = (collect(programs(*tanh(size), X), [X]).wanted[0] for size in (1.0, 1e6))
    assert one.tolerance == two.tolerance


@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_no_factor_of_size(n):
    """check_vjp's tolerance grows with the number of elements; this one's power is the same for each size."""
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    power = collect(programs(lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),), x), [x]).wanted[0].power
    assert power < 3e-6


def test_cancellation_is_seen():
    """1 − cos x in float32 leaves a digit or none, and so does the gradient of its log."""
    x = np.float32([3e-4, 5e-4])
    rule = (lambda x: (jnp.log(1 - jnp.cos(x)), x)), (lambda x, dy: (dy * jnp.sin(x) / (1 - jnp.cos(x)),))
    assert not collect(programs(*rule, x), [x]).wanted[0].power < 0.1


def test_neighbors_of_a_linear_function():
    """Its gradient is one product of dY: one unit in the last place of dY, no more."""
    p = programs(lambda X: (2 * X, ()), lambda _, dY: (2 * dY,), X)
    dYs, *_ = cotangents(p, 0, 2, [X], basis=0)
    answers = [p.by_autodiff([X], dY)[1] for dY in dYs]
    Ys = p.by_autodiff([X], dYs[0])[0]
    noise, Y_noise = neighbors(p.by_autodiff, [X], dYs, answers, Ys, 0)
    assert 0 < noise[0] <= 2 * np.abs(np.stack([dY[0] for dY in dYs])).max() * 2**-52
    assert 0 < Y_noise[0] <= 2 * np.abs(X).max() * 2**-52


@pytest.mark.parametrize("size", [1e-200, 1e250])
def test_noise_whose_square_leaves_the_range(size):
    p = programs(lambda X: (size * X, ()), lambda _, dY: (size * dY,), X)
    dYs, *_ = cotangents(p, 0, 1, [X], basis=0)
    (answers,) = [p.by_autodiff([X], dY)[1] for dY in dYs]
    noise, _ = neighbors(p.by_autodiff, [X], dYs, [answers], p.by_autodiff([X], dYs[0])[0], 0)
    assert 0 < noise[0] <= 2 * size * np.abs(dYs[0][0]).max() * 2**-52


def test_user_rtol_is_a_share_of_the_largest():
    leaf = collect(programs(*tanh(), X), [X], rtol=1e-3).wanted[0]
    assert leaf.tolerance == 1e-3 * leaf.scale
    assert leaf.power == pytest.approx(1e-3)
