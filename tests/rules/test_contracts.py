"""Every contract of a rule, on every row of the table of cases: two rows of each rule, and all with what is slow.

Compiling is what these tests cost, so all rows of a rule are one program in each dtype, and so are all ways to compute
them: by hand, by autodiff of the row's reference, by autodiff of the rule's own forward pass, vmapped, and between
other operations under jax.grad.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_programs import OPS, by_autodiff, by_hand, drawn, is_floating
from helpers import optimized_jit

from handgrad.cases import CASES, first_rows
from handgrad.factors import PerExample

WHOLE = {op: [case for case in CASES if case.op == op] for op in first_rows()}
LONG = {f"{op}, all rows": rows for op, rows in WHOLE.items() if len(rows) > 2}
ROWS = {op: rows[:2] for op, rows in WHOLE.items()} | LONG
FIRST = {key: rows[0] for key, rows in ROWS.items()}
# Rounding doesn't depend on shapes: reduced dtypes run a rule once for each choice of its options, and kinks.
PROGRAMS = list({(case.op, repr(case.options)): case for case in reversed(CASES)}.values())
CHOSEN = [case for case in CASES if case in PROGRAMS or case.name.startswith(("zero", "ties", "met", "1e4"))]
REDUCED = {
    dtype: {op: [case for case in rows if case in chosen and dtype in case.reduced] for op, rows in ROWS.items()}
    for dtype, chosen in ((jnp.float32, CHOSEN), (jnp.bfloat16, PROGRAMS))
}
EAGER = ("linear", "gelu", "layer_norm", "max_pool", "embedding", "attention", "top_k_gate", "l2_loss", "solve")


def in_turn(keys):
    """Each key: its tests run one after the other in one process, which compiles its rows once."""
    marks = {key: [pytest.mark.xdist_group(key), *[pytest.mark.slow] * (key in LONG)] for key in keys}
    return pytest.fixture(scope="module", params=[pytest.param(key, marks=marks[key]) for key in keys])


@in_turn(ROWS)
def op(request):
    return request.param


@in_turn([f"{op}, all rows" if f"{op}, all rows" in LONG else op for op in WHOLE])
def whole(request):
    """A rule with all its rows."""
    return request.param


def test_every_rule_has_a_row():
    assert WHOLE.keys() - {"bp_batch", "bp_example"} == set(OPS)
    assert len({str(case) for case in CASES}) == len(CASES)


def stacked(given):
    """The arguments, and 0.7 times them, on a new axis in front of every array of numbers; the axes."""
    axes = jax.tree.map(lambda a: 0 if is_floating(a) else None, given)
    return jax.tree.map(lambda a: jnp.stack([a, 0.7 * a]) if is_floating(a) else a, given), axes


def between(function, arguments):
    """Value and gradients of a function whose inputs are no leaves and whose cotangent isn't ones, by jax.grad."""
    floats = [i for i, a in enumerate(arguments) if is_floating(a)]

    def run(*leaves):
        inner = list(arguments)
        for i, leaf in zip(floats, leaves, strict=True):
            inner[i] = leaf * (1 - jnp.square(jnp.tanh(leaf)) / 8)  # probabilities stay probabilities
        return sum(jnp.sum(jnp.sin(Y) * Y) for Y in jax.tree.leaves(function(*inner)))

    return jax.value_and_grad(run, argnums=tuple(range(len(floats))))(*(arguments[i] for i in floats))


@functools.lru_cache(1)
def program(op):
    """(a program of all rows in float64, a list that grows when it is traced)."""
    traces = []

    @jax.jit
    def run(rows):
        traces.append(op)
        outcomes = []
        for case, (dY, *arguments) in zip(ROWS[op], rows, strict=True):
            ways = {"hand": by_hand(case)(dY, *arguments), "autodiff": by_autodiff(case)(dY, *arguments)}
            if case in CHOSEN:
                ways["ours"] = by_autodiff(case, lambda *a, case=case: case.settled.forward(*a)[0])(dY, *arguments)
            if case.peer is not None:
                ways["peer"] = case.peer(*arguments, **case.of_values)
            outcomes.append(ways)
        first, (dY, *arguments) = FIRST[op], rows[0]
        many, axes = stacked((dY, *arguments))
        outcomes[0] |= {
            "vmap": jax.vmap(by_hand(first), axes)(*many),
            "rule between": between(lambda *a: first.rule(*a, **first.options), arguments),
            "reference between": between(first.expected, arguments),
        }
        return outcomes

    return run, traces


@functools.lru_cache(1)
def outcomes(op):
    return list(zip(ROWS[op], program(op)[0]([drawn(case) for case in ROWS[op]]), strict=True))


def pairs(one, other):
    """The leaves of two outcomes side by side, which must be of one structure, shape and dtype."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    both = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    assert [(a.shape, a.dtype) for a, _ in both] == [(b.shape, b.dtype) for _, b in both]
    return both


def error(value, reference) -> float:
    """The largest difference, as a share of the reference's largest element."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    if reference.size == 0:
        return 0.0
    return float(np.max(np.abs(value - reference)) / max(np.max(np.abs(reference)), np.finfo(np.float64).tiny))


def assert_near(one, other, rtol, case):
    assert [error(*pair) for pair in pairs(one, other) if not error(*pair) <= rtol] == [], str(case)


def test_value_and_cotangents(op):
    for case, ways in outcomes(op):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(ways["hand"])), str(case)
        assert_near(ways["hand"], ways["autodiff"], case.rtol, case)


def test_autodiff_of_our_own_forward_agrees(op):
    """What jax.grad makes of an objective built from the rule, kinks and ties included."""
    for case, ways in outcomes(op):
        if "ours" in ways:
            assert_near(ways["hand"], ways["ours"], case.rtol, case)


def test_the_peer_computes_the_reference(op):
    for case, ways in outcomes(op):
        if "peer" in ways:
            assert_near(ways["peer"], ways["autodiff"][0], 1e-13, case)


def test_between_other_operations(op):
    """`hg.rules.<op>` called in a JAX program: its value and its gradients are the reference's."""
    case, ways = outcomes(op)[0]
    assert_near(ways["rule between"], ways["reference between"], case.rtol, case)


def test_vmap_equals_a_loop_and_nothing_is_traced_twice(op):
    case, ways = outcomes(op)[0]
    smaller = jax.tree.map(lambda a: 0.7 * np.asarray(a) if is_floating(a) else a, drawn(case))
    run, traces = program(op)
    before = len(traces)
    second = run([smaller, *(drawn(row) for row in ROWS[op][1:])])[0]["hand"]
    assert len(traces) == before
    for i, alone in enumerate((ways["hand"], second)):
        assert_near(jax.tree.map(lambda a, i=i: np.asarray(a)[i], ways["vmap"]), alone, case.rtol / 100, case)


def assert_no_less_exact_than_autodiff(op, dtype, chosen=slice(None)):
    """Against float64 on the same numbers: at most twice autodiff's own error (`ratio`), above a floor.

    The floor: autodiff may be exact by luck where a hand-written pass rounds. A cotangent of an elementwise rule is at
    most four roundings away from dY and what was kept (a slope of two or three operations, times dY), and what was
    kept is at most four roundings away from the arguments; a rounding moves a number by at most eps / 2. Eight of
    them (`roundings`), at worst all in one direction, are 4 eps of the largest element.
    """
    rows = REDUCED[dtype][op][chosen]
    given = {case: drawn(case, dtype) for case in rows}
    ways = optimized_jit(
        lambda given: [(by_hand(case)(*a), by_autodiff(case)(*a)) for case, a in zip(rows, given, strict=True)]
    )([*given.values()])
    in_float64 = functools.partial(jax.tree.map, lambda a: np.asarray(a, float) if is_floating(a) else a)
    wide = [in_float64(given.get(case, drawn(case))) for case in ROWS[op]]
    truths = dict(zip(ROWS[op], program(op)[0](wide), strict=True))
    for case, (hand, autodiff) in zip(rows, ways, strict=True):
        exact = jax.tree.leaves(truths[case]["autodiff"])
        floor = case.roundings / 2 * float(jnp.finfo(dtype).eps)
        for (mine, theirs), truth in zip(pairs(hand, autodiff), exact, strict=True):
            assert error(mine, truth) <= case.ratio * error(theirs, truth) + floor, str(case)


def test_no_less_exact_than_autodiff(op):
    """A rule's first row; the others with what is slow."""
    assert_no_less_exact_than_autodiff(op, jnp.float32, slice(1))


@pytest.mark.slow
def test_no_less_exact_than_autodiff_in_other_rows(whole):
    assert_no_less_exact_than_autodiff(whole, jnp.float32, slice(1, None))


@pytest.mark.slow
def test_no_less_exact_than_autodiff_in_bfloat16(whole):
    assert_no_less_exact_than_autodiff(whole, jnp.bfloat16)


def test_shapes_and_dtypes_in_bfloat16(op):
    """Y has the reference's, each cotangent its argument's."""
    for case in REDUCED[jnp.bfloat16][op]:
        dY, *arguments = drawn(case, jnp.bfloat16)
        expected = dY, tuple(a if is_floating(a) else None for a in arguments)
        pairs(jax.eval_shape(by_hand(case), dY, *arguments), expected)


@pytest.mark.parametrize("summed", ["linear_attention", "selective_scan", "crf_loss", "lsq_quantize"])
def test_each_examples_gradient_is_rounded_with_their_sum(summed):
    """Factors with a parameter's gradient of each example keep float32, and say that the parameter is in bfloat16."""
    case = next(case for case in CASES if case.op == summed)
    _, *arguments = drawn(case, jnp.bfloat16)
    Y, residuals = jax.eval_shape(case.settled.forward, *arguments)
    found = jax.eval_shape(lambda kept, dY: case.settled.backward(kept, dY), residuals, Y)
    of_examples = [c for c in found if isinstance(c, PerExample)]
    assert [(c.g.dtype, c.dtype) for c in of_examples] == [(jnp.float32, jnp.bfloat16)]


@pytest.mark.parametrize("representative", EAGER)
def test_eager_equals_jit(representative):
    """Operation by operation, for a rule of each kind; to the last bits, since XLA may fuse a product with a sum."""
    case = FIRST[representative]
    jitted = jax.jit(by_hand(case))(*drawn(case))
    assert_near(by_hand(case)(*drawn(case)), jitted, case.rtol / 100, case)
