"""Every contract of a rule on every row of tests/cases.py."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case

import handgrad as hg
from handgrad import rules

REDUCED = (jnp.float32, jnp.bfloat16)

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_reduced_dtype = pytest.mark.parametrize("dtype", REDUCED, ids=lambda d: d.__name__)


def rule_of(case: Case):
    """The forward and the backward pass of a row, its options settled."""
    return (
        functools.partial(getattr(rules, f"{case.op}_forward"), **case.options),
        functools.partial(getattr(rules, f"{case.op}_backward"), **case.options),
    )


def by_hand(case: Case):
    """(dY, *arguments) -> (Y, cotangents), factors multiplied out."""
    forward, backward = rule_of(case)

    def run(dY, *arguments):
        Y, residuals = forward(*arguments)
        cotangents = hg.materialize(backward(residuals, dY))
        assert all(c is None for c in cotangents[len(arguments) :])  # of arguments left to their defaults
        return Y, cotangents[: len(arguments)]

    return run


def by_autodiff(case: Case):
    """The same of the row's reference, by jax.vjp; None for an integer argument, as a rule says it."""

    def run(dY, *arguments):
        Y, pullback = jax.vjp(functools.partial(case.reference, **case.options), *arguments)
        cotangents = pullback(dY.astype(Y.dtype))
        return Y, tuple(None if c.dtype == jax.dtypes.float0 else c for c in cotangents)

    return run


@functools.cache
def drawn(case: Case, dtype=jnp.float64):
    """The row's arguments in a dtype, and a cotangent that is neither ones nor constant."""
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    arguments = tuple(
        jnp.asarray(a, dtype if np.issubdtype(np.asarray(a).dtype, np.floating) else None) for a in case.draw(rng)
    )
    Y = jax.eval_shape(functools.partial(case.reference, **case.options), *arguments)
    return jnp.asarray(rng.standard_normal(Y.shape), dtype), *arguments


@functools.cache
def outcomes(case: Case, dtype=jnp.float64):
    """By hand, by autodiff, and autodiff in float64 on the same numbers: one compile for each row and dtype."""
    given = drawn(case, dtype)
    in_float64 = jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, given)
    hand, autodiff = by_hand(case), by_autodiff(case)
    return jax.jit(lambda a, b: (hand(*a), autodiff(*a), autodiff(*b)))(given, in_float64)


def pairs(one, other):
    """The leaves of two outcomes side by side, which must be of one structure."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def error(value, reference) -> float:
    """The largest difference, as a share of the reference's largest element."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    if reference.size == 0:
        return 0.0
    return float(np.max(np.abs(value - reference)) / max(np.max(np.abs(reference)), np.finfo(np.float64).tiny))


@every_case
def test_value_and_cotangents_in_float64(case):
    hand, autodiff, _ = outcomes(case)
    for mine, theirs in pairs(hand, autodiff):
        assert np.all(np.isfinite(mine))
        assert error(mine, theirs) <= 1e-12


@every_case
@every_reduced_dtype
def test_no_less_exact_than_autodiff(case, dtype):
    """Against float64 on the same numbers: at most twice autodiff's own error, above a floor.

    The floor: autodiff may be exact by luck where a hand-written pass rounds. Each of our cotangents is at most four
    roundings away from dY and what was kept (a slope of two or three operations, times dY), and what was kept is at
    most four roundings away from the arguments; a rounding moves a number by at most eps / 2. Eight of them, at worst
    all in one direction, are 4 eps of the largest element.
    """
    hand, autodiff, exact = outcomes(case, dtype)
    floor = 4 * float(jnp.finfo(dtype).eps)
    for (mine, truth), (theirs, _) in zip(pairs(hand, exact), pairs(autodiff, exact), strict=True):
        assert error(mine, truth) <= 2 * error(theirs, truth) + floor


@every_case
@pytest.mark.parametrize("dtype", [jnp.float64, *REDUCED], ids=lambda d: d.__name__)
def test_shapes_and_dtypes_are_autodiffs(case, dtype):
    hand, autodiff, _ = outcomes(case, dtype)
    for mine, theirs in pairs(hand, autodiff):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)


@every_case
def test_one_cotangent_for_each_argument(case):
    dY, *arguments = drawn(case)
    forward, backward = rule_of(case)
    cotangents = backward(forward(*arguments)[1], dY)
    assert isinstance(cotangents, tuple)
    given = [c for c in cotangents if c is not None]
    assert [c.shape for c in given] == [a.shape for a in arguments if jnp.issubdtype(a.dtype, jnp.floating)]


@every_case
def test_eager_equals_jit(case):
    """To the last bits: XLA may fuse a product with a sum, which rounds once instead of twice."""
    for eager, jitted in pairs(by_hand(case)(*drawn(case)), outcomes(case)[0]):
        assert error(eager, jitted) <= 1e-14


@every_case
def test_autodiff_of_our_own_forward_agrees(case):
    """What jax.grad makes of an objective built from the rule, kinks and ties included."""
    dY, *arguments = drawn(case)
    forward, _ = rule_of(case)
    autodiff = jax.jit(by_autodiff(Case(case.op, case.name, case.draw, lambda *a, **_: forward(*a)[0])))
    for mine, theirs in pairs(outcomes(case)[0], autodiff(dY, *arguments)):
        assert error(mine, theirs) <= 1e-12


@every_case
def test_vmap_equals_a_loop(case):
    """Over a new axis in front of everything that is not of integers."""
    given = drawn(case)
    axes = tuple(0 if jnp.issubdtype(a.dtype, jnp.floating) else None for a in given)
    scales = (1.0, 0.7)
    stacked = [jnp.stack([s * a for s in scales]) if axis == 0 else a for a, axis in zip(given, axes, strict=True)]
    hand = by_hand(case)
    mapped = jax.jit(jax.vmap(hand, axes))(*stacked)
    for i, s in enumerate(scales):
        alone = hand(*(s * a if axis == 0 else a for a, axis in zip(given, axes, strict=True)))
        for one, other in pairs(jax.tree.map(lambda a, i=i: a[i], mapped), alone):
            assert error(one, other) <= 1e-14


@every_case
def test_traced_once(case):
    traces = []

    def count(*arguments):
        traces.append(1)
        return by_hand(case)(*arguments)

    compiled = jax.jit(count)
    compiled(*drawn(case))
    compiled(*drawn(case))
    assert len(traces) == 1


@every_case
def test_between_other_layers(case):
    """An input that is no leaf and a cotangent that the rest of the program makes: the rule inside jax.grad."""
    _, *arguments = drawn(case)
    floats = [i for i, a in enumerate(arguments) if jnp.issubdtype(a.dtype, jnp.floating)]
    reference = functools.partial(case.reference, **case.options)
    f = hg.custom_vjp_rule(getattr(rules, f"{case.op}_forward"), getattr(rules, f"{case.op}_backward"), **case.options)

    def program(op, *leaves):
        inner = list(arguments)
        for i, leaf in zip(floats, leaves, strict=True):
            inner[i] = leaf * (1 - jnp.square(jnp.tanh(leaf)) / 8)  # probabilities stay probabilities
        Y = op(*inner)
        return jnp.sum(jnp.sin(Y) * Y)

    leaves = [arguments[i] for i in floats]
    gradients = jax.jit(
        lambda *leaves: tuple(
            jax.grad(program, argnums=tuple(range(1, len(leaves) + 1)))(op, *leaves) for op in (f, reference)
        )
    )(*leaves)
    for mine, theirs in pairs(*gradients):
        assert error(mine, theirs) <= 1e-12
