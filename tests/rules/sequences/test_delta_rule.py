"""delta_rule: its chunks are its recurrence, it remembers what it should, and keeps its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit, passes, together
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
Q, K = RNG.standard_normal((2, 2, 9, 2, 3))
K /= np.linalg.norm(K, axis=-1, keepdims=True)
V, BETA, DECAY = RNG.standard_normal((2, 9, 2, 2)), RNG.uniform(0, 2, (2, 9, 2)), -RNG.exponential(1, (2, 9, 2))
S0 = RNG.standard_normal((2, 2, 3, 2))
GIVEN, DY = (Q, K, V, BETA, DECAY, S0), (RNG.standard_normal((2, 9, 2, 2)), RNG.standard_normal((2, 2, 3, 2)))
RULE = rules.delta_rule


def test_every_chunk_is_the_recurrence():
    """Nine steps are no multiple of two or four; both halves of a sequence, one after the other, are the whole."""
    recurrence, *found = together((RULE.with_options(chunk=chunk), DY, GIVEN) for chunk in (1, 2, 4, 9, None))
    for one in found:
        assert_same(one, recurrence, 1e-13)

    @jax.jit
    def in_two():
        first, second = ([A[:, part] for A in GIVEN[:5]] for part in (slice(4), slice(4, None)))
        (Y1, S), kept1 = RULE.forward(*first, S0)
        (Y2, S), kept2 = RULE.forward(*second, S)
        *later, dS = RULE.backward(kept2, (DY[0][:, 4:], DY[1]))
        *sooner, dS0 = RULE.backward(kept1, (DY[0][:, :4], dS))
        whole = [jnp.concatenate(pair, axis=1) for pair in zip(sooner, later, strict=True)]
        return (jnp.concatenate([Y1, Y2], axis=1), S), (*whole, dS0)

    assert_same(in_two(), recurrence, 1e-13)


def test_it_remembers_and_corrects():
    """With β = 1, a unit key's value is what is read for it, also where it had another value before; orthogonal keys
    don't disturb one another; β = 0 writes nothing."""
    keys = np.eye(3)[[0, 1, 0, 2, 1]][None, :, None]
    values = np.array([[1.0, 2], [3, 4], [5, 6], [7, 8], [9, 9]])[None, :, None]
    beta = np.array([1.0, 1, 1, 1, 0])[None, :, None]
    (Y, S), _ = jax.jit(RULE.forward)(keys, keys, values, beta)
    assert np.asarray(Y)[0, :, 0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [3, 4]]
    assert np.asarray(S)[0, 0].tolist() == [[5, 6], [3, 4], [7, 8]]


def test_digits_behind_a_step_that_forgets():
    """In float32, log decays of −3000 among small ones: a difference of cumulative sums would lose four digits."""
    time, rng = 32, np.random.default_rng(1)
    Q, K, V = rng.standard_normal((3, 1, time, 1, 4)) / 2
    decay = -rng.uniform(0, 0.1, (1, time, 1))
    decay[:, 3::8] = -3000
    given, dY = (Q, K, V, rng.uniform(0, 1, (1, time, 1)), decay), (V[::-1], np.zeros((1, 1, 4, 4)))
    narrow = jax.tree.map(lambda a: a.astype(np.float32), (dY, given))
    wide = jax.tree.map(lambda a: a.astype(np.float64), narrow)
    run = optimized_jit(lambda each: [passes(RULE, dY, *given) for dY, given in each])
    found, exact = run([narrow, wide])
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, two, rtol=0, atol=2e-6 * np.abs(two).max())


def test_no_steps():
    """The state as it came, and its cotangent."""
    nothing = [A[:, :0] for A in GIVEN[:5]]

    @jax.jit
    def run():
        (Y, S), kept = RULE.forward(*nothing, S0)
        return Y, S, RULE.backward(kept, (Y, DY[1]))

    Y, S, (dQ, *_, dS0) = run()
    assert (Y.shape, dQ.shape) == ((2, 0, 2, 2), (2, 0, 2, 3))
    assert_same((S, dS0), (S0, DY[1]))


@pytest.mark.slow
def test_memory_of_states_at_chunks_alone():
    """1,024 steps: less than an eighth of what every step's state takes."""
    like = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((1, 1024, 2, 64),) * 3 + ((1, 1024, 2),)]
    dY = like[2], jax.ShapeDtypeStruct((1, 2, 64, 64), "float32")
    program = jax.jit(lambda dY, *given: passes(RULE, dY, *given)).lower(dY, *like).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 1024 * 2 * 64 * 64 / 8


def test_delta_rule_of_the_wrong_shape():
    refuses(RULE, "Q must have shape (batch, time, heads, features), got float64 (9, 2, 3)", Q[0], K, V, BETA)
    refuses(RULE, "K must have shape (2, 9, 2, 3) like Q, got float64 (2, 9, 2, 2)", Q, V, V, BETA)
    refuses(RULE, "V must have shape (2, 9, 2, 2) to meet K …, got float64 (2, 8, 2, 2)", Q, K, V[:, 1:], BETA)
    refuses(RULE, "beta must have shape (2, 9, 2) (one number …), got float64 (2, 9, 2, 2)", Q, K, V, V)
    refuses(RULE, "log_decay must have shape (2, 9, 2) (one …), got float64 (2, 9, 2, 2)", Q, K, V, BETA, V)
    refuses(RULE, "S0 must have shape (2, 2, 3, 2) (a matrix …), got float64 (2, 9, 2, 2)", Q, K, V, BETA, None, V)
    refuses(RULE, "chunk must be a positive integer, got 0", Q, K, V, BETA, chunk=0)
    _, kept = jax.eval_shape(lambda: RULE.forward(*GIVEN, chunk=3))
    with pytest.raises(hg.InputError, match=r"^delta_rule_backward: chunk must be .*, which kept 3 states, not 1$"):
        RULE.backward(kept, DY)
