"""Every contract of a rule on every row of tests/cases/."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case
from cases.case import by_autodiff, by_hand, drawn, is_floating, rule_of

import handgrad as hg
from handgrad import rules


def grouped(rows):
    """A row's tests run in one process, which compiles it once; those in bfloat16 with what is slow."""
    return [
        pytest.param(
            *row,
            marks=[pytest.mark.xdist_group(str(row[0])), *([pytest.mark.slow] if jnp.bfloat16 in row else [])],
            id="-".join(map(word, row)),
        )
        for row in rows
    ]


def word(value) -> str:
    return getattr(value, "__name__", str(value))


def first_of_each(key):
    """The first row of each kind: rows that share a key are of one kind."""
    firsts = {}
    for case in CASES:
        firsts.setdefault(key(case), case)
    return [(case,) for case in firsts.values()]


# What is about the program and not about the numbers is asked of a rule once for each choice of its options, and so is
# rounding, which shapes don't change (in float32 where numbers are special too); what takes longest to compile, once.
every_case = pytest.mark.parametrize("case", grouped([(case,) for case in CASES]))
PROGRAMS = first_of_each(lambda case: (case.op, repr(case.options)))
every_program = pytest.mark.parametrize("case", grouped(PROGRAMS))
KINKS = [(case,) for case in CASES if case.name.startswith(("zero", "ties", "met", "1e4"))]
PROGRAMS_AND_KINKS = dict.fromkeys([*PROGRAMS, *KINKS])
every_program_and_kink = pytest.mark.parametrize("case", grouped(PROGRAMS_AND_KINKS))
every_rule = pytest.mark.parametrize("case", grouped(first_of_each(lambda case: case.op)))
REDUCED = [
    (case, dtype)
    for (case,) in PROGRAMS_AND_KINKS
    for dtype in case.reduced
    if dtype == jnp.float32 or (case,) in PROGRAMS
]
every_reduced_case = pytest.mark.parametrize(("case", "dtype"), grouped(REDUCED))


def by_autodiff_of_ours(case: Case):
    """What jax.vjp makes of the rule's own forward pass."""
    forward, _ = rule_of(case)
    return by_autodiff(Case(case.op, case.name, case.draw, lambda *arguments, **_: forward(*arguments)[0]))


@functools.cache
def compiled(case: Case):
    """All ways in one program, compiled once for each dtype that it meets."""
    ways = by_hand(case), by_autodiff(case)
    of_ours = by_autodiff_of_ours(case)

    def run(dY, *arguments):
        in_float64 = jax.tree.leaves(dY)[0].dtype == jnp.float64
        outcomes = [way(dY, *arguments) for way in ways]
        return [*outcomes, of_ours(dY, *arguments)] if in_float64 and (case,) in PROGRAMS_AND_KINKS else outcomes

    return jax.jit(run)


@functools.cache
def outcomes(case: Case, dtype=jnp.float64):
    """By hand, by autodiff, and in float64 by autodiff of our own forward pass too."""
    return compiled(case)(*drawn(case, dtype))


def in_float64(case: Case, dtype):
    """Autodiff in float64 on the numbers of another dtype."""
    given = jax.tree.map(lambda a: a.astype(jnp.float64) if is_floating(a) else a, drawn(case, dtype))
    return compiled(case)(*given)[1]


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
    hand, autodiff, *_ = outcomes(case)
    for mine, theirs in pairs(hand, autodiff):
        assert np.all(np.isfinite(mine))
        assert error(mine, theirs) <= case.rtol


@every_reduced_case
def test_no_less_exact_than_autodiff(case, dtype):
    """Against float64 on the same numbers: at most twice autodiff's own error (`ratio`), above a floor.

    The floor: autodiff may be exact by luck where a hand-written pass rounds. A cotangent of an elementwise rule is at
    most four roundings away from dY and what was kept (a slope of two or three operations, times dY), and what was
    kept is at most four roundings away from the arguments; a rounding moves a number by at most eps / 2. Eight of
    them (`roundings`), at worst all in one direction, are 4 eps of the largest element.
    """
    (hand, autodiff), exact = outcomes(case, dtype), in_float64(case, dtype)
    floor = case.roundings / 2 * float(jnp.finfo(dtype).eps)
    for (mine, truth), (theirs, _) in zip(pairs(hand, exact), pairs(autodiff, exact), strict=True):
        assert error(mine, truth) <= case.ratio * error(theirs, truth) + floor


@every_case
def test_shapes_and_dtypes_are_autodiffs(case):
    reduced = [dtype for row, dtype in REDUCED if row is case]
    for dtype in (jnp.float64, *reduced):
        given = drawn(case, dtype)
        for mine, theirs in pairs(*(jax.eval_shape(way, *given) for way in (by_hand(case), by_autodiff(case)))):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)


@every_case
def test_one_cotangent_for_each_argument(case):
    dY, *arguments = drawn(case)
    forward, backward = rule_of(case)
    cotangents = jax.eval_shape(lambda dY, *arguments: backward(forward(*arguments)[1], dY), dY, *arguments)
    assert isinstance(cotangents, tuple)
    given = [c for c in cotangents if c is not None]
    assert [c.shape for c in given] == [a.shape for a in arguments if is_floating(a)]


@every_rule
def test_eager_equals_jit(case):
    """To the last bits: XLA may fuse a product with a sum, which rounds once instead of twice."""
    for eager, jitted in pairs(by_hand(case)(*drawn(case)), outcomes(case)[0]):
        assert error(eager, jitted) <= case.rtol / 100


@every_program_and_kink
def test_autodiff_of_our_own_forward_agrees(case):
    """What jax.grad makes of an objective built from the rule, kinks and ties included."""
    hand, _, autodiff_of_ours = outcomes(case)
    for mine, theirs in pairs(hand, autodiff_of_ours):
        assert error(mine, theirs) <= case.rtol


@every_rule
def test_vmap_equals_a_loop(case):
    """Over a new axis in front of every array of numbers."""
    given, where = jax.tree.flatten(drawn(case))
    axes = [0 if is_floating(a) else None for a in given]
    scales = (1.0, 0.7)
    stacked = [jnp.stack([s * a for s in scales]) if is_floating(a) else a for a in given]
    mapped = jax.jit(jax.vmap(by_hand(case), where.unflatten(axes)))(*where.unflatten(stacked))
    for i, s in enumerate(scales):
        alone, *_ = compiled(case)(*where.unflatten([s * a if is_floating(a) else a for a in given]))
        for one, other in pairs(jax.tree.map(lambda a, i=i: a[i], mapped), alone):
            assert error(one, other) <= case.rtol / 100


@every_program
def test_traced_once(case):
    traces = []

    def count(*arguments):
        traces.append(1)
        return by_hand(case)(*arguments)

    jitted = jax.jit(count)
    jitted.lower(*drawn(case))
    jitted.lower(*drawn(case))
    assert len(traces) == 1


@every_rule
def test_between_other_layers(case):
    """An input that is no leaf and a cotangent that the rest of the program makes: the rule inside jax.grad."""
    _, *arguments = drawn(case)
    floats = [i for i, a in enumerate(arguments) if is_floating(a)]
    reference = functools.partial(case.reference, **case.of_values)
    f = hg.custom_vjp_rule(*getattr(rules, case.op), **case.options)

    def program(op, *leaves):
        inner = list(arguments)
        for i, leaf in zip(floats, leaves, strict=True):
            inner[i] = leaf * (1 - jnp.square(jnp.tanh(leaf)) / 8)  # probabilities stay probabilities
        return sum(jnp.sum(jnp.sin(Y) * Y) for Y in jax.tree.leaves(op(*inner)))

    leaves = [arguments[i] for i in floats]
    gradients = jax.jit(
        lambda *leaves: tuple(
            jax.grad(program, argnums=tuple(range(1, len(leaves) + 1)))(op, *leaves) for op in (f, reference)
        )
    )(*leaves)
    for mine, theirs in pairs(*gradients):
        assert error(mine, theirs) <= case.rtol
