"""A mutant of the program is the program with one equation changed, and nothing else."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from crosscheck.errors.arrays import normal

from handgrad import rules
from handgrad.crosscheck.errors import control
from handgrad.crosscheck.errors.program.mutants import program_mutants
from handgrad.crosscheck.errors.program.tracing import trace

KINDS = {
    "another function",
    "column-major",
    "conjugate",
    "constant",
    "doubled intermediate",
    "dropped factor",
    "dropped term",
    "examples permuted",
    "exponent",
    "first example alone",
    "flipped comparison",
    "function left out",
    "ignores the cotangent",
    "last example dropped",
    "last one dropped from a sum",
    "max for min",
    "mean for a sum",
    "missing reduction",
    "not linear",
    "off by one",
    "one branch alone",
    "product for a quotient",
    "sign of a term",
    "sign of an intermediate",
    "stale operand",
    "stale residual",
    "sum for a product",
    "swapped operands",
    "transposed operand",
    "wrong axis",
    "wrong branch",
    "wrong direction",
    "zeroed intermediate",
}


def rule(op):
    """A rule of handgrad as (leaves, dYs) -> (Ys, cotangents)."""
    forward, backward = getattr(rules, op)

    def hand(leaves, dYs):
        Y, residuals = forward(*leaves)
        cotangents = [c for c in backward(residuals, dYs[0]) if c is not None]
        return [Y], [c if isinstance(c, jax.Array) else c.sum() for c in cotangents]

    return hand


def plain_softmax(leaves, dYs):
    """Softmax as books have it, (leaves, dYs) -> (Ys, cotangents)."""
    (X,), (dP,) = leaves, dYs
    E = jnp.exp(X - jnp.max(X, axis=-1, keepdims=True))
    P = E / jnp.sum(E, axis=-1, keepdims=True)
    return [P], [P * (dP - jnp.sum(P * dP, axis=-1, keepdims=True))]


def mutants_of(hand, leaves, dY_shape, limit=10_000, seed=0, count=2, dtype=np.float64):
    dYs = [[dY] for dY in normal(*[dY_shape] * count, dtype=dtype, seed=7)]
    old = normal(*[leaf.shape for leaf in leaves], dtype=dtype, seed=8)
    stale = [new if leaf.dtype == dtype else leaf for new, leaf in zip(old, leaves, strict=True)]
    names = "XWbcd"[: len(jax.eval_shape(hand, leaves, dYs[0])[1])]
    mutants = list(program_mutants(hand, leaves, dYs, names, stale, limit, seed))
    return mutants, dYs, stale


def by_words(mutants):
    """{description without the line: cotangents of the first draw}"""
    return {mutant.description.split(", ", 1)[-1]: mutant.cotangents[0] for mutant in mutants}


def everything(leaves, dYs):
    """A backward part with an equation of every sort; the gradient of nothing."""
    (X,), (dY,) = leaves, dYs
    n = X.shape[0]
    slope = jnp.where(X > 0, jnp.exp(X), X**3) / (2 + jnp.tanh(X)) + jnp.maximum(X, 0.5) - jnp.minimum(X, dY)
    mixed = (slope * dY) @ X + jnp.sum(dY, axis=0)[:, None] + jnp.max(X, axis=1)[:, None]
    carried = jax.lax.scan(lambda c, row: (c + row, c * row), X[0], mixed)[1]
    chosen = jax.lax.cond(X[0, 0] > 10, lambda a: a, lambda a: 3 * a, carried)
    ordered = jnp.concatenate([chosen[1:], chosen[:1]]).reshape(-1)[::-1].reshape(n, n)
    return [X + 1], [ordered + jnp.roll(jnp.cumsum(ordered, axis=0), 1, axis=0).T]


def test_every_kind():
    found = {mutant.kind for mutant in mutants_of(everything, normal((4, 4)), (4, 4))[0]}

    def conjugate(leaves, dYs):
        return [leaves[0] ** 2], [2 * jnp.real(leaves[0]) * jnp.conj(dYs[0])]

    X = normal((3,), dtype=np.complex128)
    assert found | {m.kind for m in mutants_of(conjugate, X, (3,), dtype=np.complex128)[0]} == KINDS


def test_the_program_computes_the_same():
    """And knows which equations the outputs don't need."""
    (X, dY) = normal((5, 7), (5, 7))
    program = trace(plain_softmax, [X], [dY])
    forward, backward = program.backward()
    assert [step.primitive.name for step in backward] == [
        "mul",
        "reduce_sum",
        "broadcast_in_dim",
        "sub",
        "mul",
        "return",
    ]
    assert [step.primitive.name for step in forward][-1] == "div"
    assert all(step.where.startswith("test_mutants.py:") for step in program.steps)


def test_softmax_by_its_formula():
    X, X_old, dY = normal((5, 7), (5, 7), (5, 7))
    mutants = list(program_mutants(plain_softmax, [X], [[dY]], ["X"], [X_old], 1000, 0))
    P, Q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (X, X_old))
    inner = (P * dY).sum(-1, keepdims=True)
    expected = {
        "sub: the second term left out": P * dY,
        "sub: the first term left out": -P * inner,
        "sub: the second term's sign flipped": P * (dY + inner),
        "sub: the terms exchanged": P * (inner - dY),
        "reduce_sum: the first element instead of the sum": P * (dY - (P * dY)[:, :1]),
        "reduce_sum: the last element left out of the sum": P * (dY - (P * dY)[:, :-1].sum(-1, keepdims=True)),
        "reduce_sum: a mean instead of the sum": P * (dY - inner / 7),
        "reduce_sum: × 2": P * (dY - 2 * inner),
        "reduce_sum: zero": P * dY,
        "stale div of test_mutants.py": Q * (dY - (Q * dY).sum(-1, keepdims=True)),
        "dY: ones instead": 0 * P,
        "dY: squared": P * (dY**2 - (P * dY**2).sum(-1, keepdims=True)),
        "dY: without the last example": P * (dY - inner) * (np.arange(5) < 4)[:, None],
    }
    found = {re.sub(r":\d.*", "", words): cotangents for words, cotangents in by_words(mutants).items()}
    for words, dX in expected.items():
        np.testing.assert_allclose(found[words][0], dX, rtol=0, atol=1e-14, err_msg=words)
    assert {mutant.leaf for mutant in mutants if not mutant.equivalent} == {"X"}
    # The residual is used twice: each use may be stale alone.
    alone = [mutant.cotangents[0][0] for mutant in mutants if mutant.kind == "stale operand"]
    uses = [P * (dY - (Q * dY).sum(-1, keepdims=True)), Q * (dY - inner)]
    assert all(any(np.allclose(use, dX, rtol=0, atol=1e-14) for dX in alone) for use in uses)
    assert len(alone) == 2


def test_linear_by_its_formula():
    leaves = normal((5, 3), (3, 3), (3,))
    mutants, dYs, stale = mutants_of(rule("linear"), leaves, (5, 3))
    (X, W, _), ((dY,), _), (X_old, W_old, _) = leaves, dYs, stale
    right = [dY @ W.T, X.T @ dY, dY.sum(0)]
    expected = [
        ("stale argument 0", "W", X_old.T @ dY),
        ("stale argument 1", "X", dY @ W_old.T),
        ("operand 1 transposed", "X", dY @ W),
        ("reduce_sum: the first element instead of the sum", "b", dY[0]),
        ("reduce_sum: a mean instead of the sum", "b", dY.mean(0)),
    ]
    names = ["X", "W", "b"]
    for words, leaf, value in expected:
        (mutant,) = [mutant for mutant in mutants if mutant.description.endswith(words)]
        assert mutant.leaf == leaf
        assert not mutant.equivalent
        for i, name in enumerate(names):
            np.testing.assert_allclose(mutant.cotangents[0][i], value if name == leaf else right[i], atol=1e-13)
    assert {mutant.leaf for mutant in mutants if mutant.kind == "first example alone"} == {""}


def test_branches_and_functions():
    def hand(leaves, dYs):
        (X,), (dY,) = leaves, dYs
        return [jnp.where(X > 0, X, 0)], [dY * jnp.where(X > 0, jnp.exp(X), 0.5)]

    (X,) = normal((6,))
    mutants, dYs, _ = mutants_of(hand, [X], (6,), count=1)
    found, dY = by_words(mutants), dYs[0][0]
    expected = {
        "select_n: the cases exchanged": dY * np.where(X > 0, 0.5, np.exp(X)),
        "select_n: case 0 always": 0.5 * dY,
        "select_n: case 1 always": np.exp(X) * dY,
        "gt: < instead": dY * np.where(X < 0, np.exp(X), 0.5),
        "exp: exp left out": dY * np.where(X > 0, X, 0.5),
        "exp: expm1 instead of exp": dY * np.where(X > 0, np.expm1(X), 0.5),
        "mul: the first factor left out": np.where(X > 0, np.exp(X), 0.5),
        "mul: the second factor left out": dY,
        "mul: a sum instead of the product": dY + np.where(X > 0, np.exp(X), 0.5),
    }
    for words, dX in expected.items():
        np.testing.assert_allclose(found[words][0], dX, rtol=1e-14, err_msg=words)
    (constant,) = [m.cotangents[0][0] for m in mutants if m.kind == "constant"]
    np.testing.assert_allclose(constant, dY * np.where(X > 0, np.exp(X), 0.505))


@pytest.mark.parametrize("explicit", [True, False])
def test_along_the_wrong_axis(explicit):
    def hand(leaves, dYs):
        (X,), (dY,) = leaves, dYs
        rows = dY[:, None]
        C = jnp.cumsum(X, axis=1).reshape(9)[:9].reshape(3, 3)
        return [jnp.sum(X, axis=1)], [(jnp.broadcast_to(rows, X.shape) if explicit else rows) + C]

    (X,) = normal((3, 3))
    mutants, dYs, _ = mutants_of(hand, [X], (3,), count=1)
    dY, C = dYs[0][0], np.cumsum(X, axis=1)
    found = {mutant.kind: mutant.cotangents[0][0] for mutant in mutants}
    np.testing.assert_allclose(found["wrong axis"], dY[None, :] + C, rtol=1e-14)
    np.testing.assert_allclose(found["column-major"], dY[:, None] + C.T, rtol=1e-14)
    np.testing.assert_allclose(found["wrong direction"], dY[:, None] + np.cumsum(X[:, ::-1], axis=1)[:, ::-1])


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "gelu", "tanh", "selu"])
def test_a_sharp_judge_kills_all(op):
    leaves = normal((5, 7))
    mutants, dYs, _ = mutants_of(rule(op), leaves, (5, 7), count=3)
    reference = getattr(rules, op).forward
    truth = [[np.asarray(c) for c in jax.vjp(lambda X: reference(X)[0], *leaves)[1](dY)] for (dY,) in dYs]

    def judge(found):
        return not all(
            np.abs(a[0] - b[0]).max() <= 1e-12 * np.abs(b[0]).max() for a, b in zip(found, truth, strict=True)
        )

    report = control(judge, truth, mutants)
    assert report.survived == ()
    assert sum(report.killed.values()) + report.equivalent == len(mutants) > 15
    # What differs in digits alone: by how much a row of dP is shifted, which of its two forms log_softmax takes for an
    # element, and which sum of a row; and what stands in selu's other branch.
    assert report.equivalent <= {"softmax": 23, "log_softmax": 55, "selu": 8}.get(op, 3)


def test_equivalent_is_said_even_where_roundings_differ():
    """No sum over one element can be told from a mean: whatever the jitted gradient rounds to."""

    def hand(leaves, dYs):
        return [leaves[0] * 1], [jnp.sum(dYs[0] * leaves[0], axis=1, keepdims=True) * 0 + dYs[0]]

    mutants, *_ = mutants_of(hand, normal((4, 3)), (4, 3))
    assert {mutant.equivalent for mutant in mutants if "reduce_sum" in mutant.description} == {True}
    assert {mutant.equivalent for mutant in mutants if "dY" in mutant.description} == {False}


def test_limit_and_seed():
    hand, leaves = rule("gelu"), normal((5, 7))
    everything = mutants_of(hand, leaves, (5, 7))[0]
    some = mutants_of(hand, leaves, (5, 7), limit=20)[0]
    assert [mutant[:3] for mutant in some] == [mutant[:3] for mutant in everything[:20]]
    assert len(some) == 20 < len(everything)
    # Evenly over the kinds: nothing comes twice before everything came once.
    kinds = {mutant.kind for mutant in everything}
    assert {mutant.kind for mutant in everything[: len(kinds)]} == kinds
    other = mutants_of(hand, leaves, (5, 7), limit=20, seed=1)[0]
    assert [mutant.description for mutant in other] != [mutant.description for mutant in some]
    assert mutants_of(hand, leaves, (5, 7), limit=0)[0] == []


@jax.custom_vjp
def cube(X):
    return X**3


cube.defvjp(lambda X: (X**3, X), lambda X, dY: (3 * X**2 * dY,))


@pytest.mark.parametrize(
    "inner",
    [
        jax.jit(lambda X: jnp.sin(X) * 2),
        jax.jit(jax.jit(lambda X: jnp.sin(X) * 2)),
        jax.checkpoint(lambda X: jnp.sin(X) * 2),
        cube,
        jax.nn.relu,
        jax.nn.silu,
    ],
)
def test_nested_calls_are_one_list(inner):
    def hand(leaves, dYs):
        return [leaves[0] + 1], [dYs[0] * inner(leaves[0])]

    leaves = normal((4,))
    mutants, dYs, _ = mutants_of(hand, leaves, (4,), count=1)
    program = trace(hand, leaves, dYs[0])
    assert not {"jit", "pjit", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}.intersection(
        step.primitive.name for step in program.steps
    )
    (dropped,) = [
        m for m in mutants if m.description.endswith("mul: the first factor left out") and "test_m" in m.description
    ][-1:]
    assert not dropped.equivalent
    assert any(np.allclose(m.cotangents[0][0], inner(leaves[0]), rtol=1e-14) for m in mutants)


def test_closed_over_arrays():
    K = np.array([2.0, 3.0, 5.0])

    def hand(leaves, dYs):
        return [leaves[0] * K], [jax.jit(lambda dY: dY * jnp.asarray(K))(dYs[0])]

    mutants, dYs, _ = mutants_of(hand, normal((3,)), (3,), count=1)
    (constant,) = [mutant for mutant in mutants if mutant.kind == "constant"]
    np.testing.assert_allclose(constant.cotangents[0][0], 1.01 * K * dYs[0][0])


def test_a_loop_is_one_equation():
    def hand(leaves, dYs):
        (X,), (dY,) = leaves, dYs
        return [jnp.cumsum(X, axis=0)], [jax.lax.scan(lambda c, d: (c + d, c + d), dY[0] * 0, dY, reverse=True)[1]]

    mutants, dYs, _ = mutants_of(hand, normal((4, 2)), (4, 2), count=1)
    dY = dYs[0][0]
    (forwards,) = [mutant for mutant in mutants if mutant.kind == "wrong direction"]
    np.testing.assert_allclose(forwards.cotangents[0][0], np.cumsum(dY, axis=0))
    (doubled,) = [mutant for mutant in mutants if mutant.description.endswith("scan: output 1: × 2")]
    np.testing.assert_allclose(doubled.cotangents[0][0], 2 * np.cumsum(dY[::-1], axis=0)[::-1])


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.complex64])
def test_any_precision(dtype):
    def hand(leaves, dYs):
        (X, W), (dY,) = leaves, dYs
        return [X @ W], [dY @ W.T, X.T @ dY + 0 * jnp.sum(W)]

    mutants, *_ = mutants_of(hand, normal((3, 3), (3, 3), dtype=dtype), (3, 3), dtype=dtype)
    assert len({mutant.kind for mutant in mutants}) > 15
    for mutant in mutants:
        assert [(c.shape, c.dtype) for c in mutant.cotangents[1]] == [((3, 3), dtype), ((3, 3), dtype)]
    assert sum(mutant.equivalent for mutant in mutants) < len(mutants) / 3


def test_float32_without_x64():
    with jax.enable_x64(False):
        mutants, *_ = mutants_of(rule("gelu"), normal((3, 4), dtype=np.float32), (3, 4), dtype=np.float32)
    assert {mutant.cotangents[0][0].dtype for mutant in mutants} == {np.dtype(np.float32)}
    assert sum(not mutant.equivalent for mutant in mutants) > 40


def test_integers_among_the_arguments():
    X, labels = normal((4, 3))[0], np.array([0, 2, 1, 1])
    mutants, dYs, _ = mutants_of(rule("softmax_cross_entropy"), [X, labels], (4,))
    assert {mutant.leaf for mutant in mutants if not mutant.equivalent} == {"X"}
    P = np.exp(X) / np.exp(X).sum(-1, keepdims=True)
    Q, dlosses = np.eye(3)[labels], dYs[0][0][:, None]
    assert any(np.allclose(m.cotangents[0][0], dlosses * (Q - P)) for m in mutants if "sign" in m.kind)
    assert any(m.kind == "flipped comparison" and not m.equivalent for m in mutants)


def test_nothing_to_mutate():
    assert mutants_of(lambda leaves, dYs: ([leaves[0] * 1], [jnp.zeros(3)]), normal((3,)), (3,))[0][0].equivalent
    mutants, *_ = mutants_of(rule("linear"), normal((0, 3), (3, 2)), (0, 2))
    assert all(mutant.equivalent for mutant in mutants)


def test_as_many_names_as_cotangents():
    with pytest.raises(ValueError, match="2 names for 1 cotangents"):
        list(program_mutants(rule("tanh"), normal((2, 2)), [normal((2, 2))], ["X", "W"], normal((2, 2)), 10, 0))
