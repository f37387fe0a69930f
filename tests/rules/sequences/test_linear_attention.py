"""linear_attention: its chunks are the recurrence, its triangle is retention's, and what it keeps is small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit, passes
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules
from handgrad.cases._linear_attention import drawn, linear_attention as by_steps

RNG = np.random.default_rng(0)
RULE = rules.linear_attention


def cotangents(arguments):
    """Normal numbers for Y and the last state."""
    shapes = jax.eval_shape(by_steps, *arguments)
    return tuple(RNG.standard_normal(y.shape) for y in shapes)


def test_chunks_of_every_size_agree_and_so_do_two_calls():
    """One program: in one chunk, in several, a token at a time; and 5 tokens, then 6 from the state behind them."""
    arguments = drawn(11, "feature", bonus=True, state=True)(RNG)
    dY, dS_last = cotangents(arguments)

    @jax.jit
    def run(Q, K, V, log_decay, u, S0):
        whole = [passes(RULE.with_options(chunk=c), (dY, dS_last), Q, K, V, log_decay, u, S0) for c in (16, 4, 1)]
        parts = [[A[:, cut] for A in (Q, K, V, log_decay)] for cut in (slice(5), slice(5, None))]
        (Y0, S), first = RULE.forward(*parts[0], u, S0)
        (Y1, S_last), second = RULE.forward(*parts[1], u, S)
        *d1, du1, dS = RULE.backward(second, (dY[:, 5:], dS_last))
        *d0, du0, dS0 = RULE.backward(first, (dY[:, :5], dS))
        joined = [jnp.concatenate(pair, axis=1) for pair in zip(d0, d1, strict=True)]
        return whole, ((jnp.concatenate([Y0, Y1], axis=1), S_last), (*joined, du0.sum() + du1.sum(), dS0))

    (one, *others), in_two_calls = run(*arguments)
    for other in (*others, in_two_calls):
        assert_same(other, one)


def test_retention_is_a_triangle_of_powers():
    """Y = (Q Kᵀ ∘ D) V with D_ij = γ^(i − j), in NumPy; and the identity for the decays."""
    Q, K, V, *_ = drawn(9)(RNG)
    log_decay = np.broadcast_to(np.log([0.9, 0.4])[None, None, :, None], (3, 9, 2, 1))
    dY, dS = cotangents((Q, K, V))
    (Y, S), (dQ, dK, _, dlog_decay, *_) = jax.jit(lambda *a: passes(RULE, (dY, dS), *a))(Q, K, V, log_decay)
    ahead = np.subtract.outer(np.arange(9), np.arange(9))
    D = np.where(ahead >= 0, np.exp(log_decay[0, 0])[..., None] ** np.maximum(ahead, 0)[None, None], 0)[0]
    P = np.einsum("bthn,bshn->bhts", Q, K) * D
    np.testing.assert_allclose(Y, np.einsum("bhts,bshv->bthv", P, V), rtol=1e-12, atol=1e-12)
    terms = np.sum(Q * np.asarray(dQ) - K * np.asarray(dK), axis=3, keepdims=True)
    terms[:, -1] += np.sum(np.asarray(S) * dS, axis=(2, 3))[..., None]
    np.testing.assert_allclose(dlog_decay, np.cumsum(terms[:, ::-1], axis=1)[:, ::-1], rtol=1e-10, atol=1e-10)


def test_strong_decays_lose_no_digits():
    """In float32: by the identity, a difference, the cotangent of log a = −12 would have no digit left."""
    Q, K, V, log_decay, *_ = (a if a is None else np.float32(a) for a in drawn(16, "feature")(RNG))
    log_decay = np.float32(log_decay - 12)
    dY = tuple(np.float32(d) for d in cotangents((Q, K, V)))
    run = optimized_jit(lambda dY, *a: passes(RULE, dY, *a)[1][3])
    found, exact = run(dY, Q, K, V, log_decay), run(*jax.tree.map(np.float64, (dY, Q, K, V, log_decay)))
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-6 * np.abs(exact).max())


def test_states_are_kept_between_chunks_alone():
    """Residuals by shape; and less memory than autodiff's of the recurrence, which keeps every state."""
    shapes = [jax.ShapeDtypeStruct((1, 128, 1, n), np.float32) for n in (16, 16, 16, 1)]
    _, residuals = jax.eval_shape(lambda *a: RULE.forward(*a, chunk=32), *shapes)
    assert residuals.S.shape == (4, 1, 1, 16, 16)
    assert [residuals[i] is None for i in range(7)] == [False] * 4 + [True, True, False]

    def temporary(function):
        compiled = jax.jit(jax.grad(lambda *a: jnp.sum(function(*a)[0] ** 2), (0, 1, 2, 3))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def recurrence(Q, K, V, log_decay):
        def step(S, at):
            q, k, v, a = at
            S = jnp.exp(a)[..., None] * S + k[..., None] * v[..., None, :]
            return S, jnp.einsum("bhn,bhnv->bhv", q, S)

        S = jnp.zeros((1, 1, 16, 16), np.float32)
        S, Y = jax.lax.scan(step, S, tuple(jnp.moveaxis(A, 1, 0) for A in (Q, K, V, log_decay)))
        return jnp.moveaxis(Y, 0, 1), S

    assert temporary(lambda *a: RULE(*a, chunk=32)) < temporary(recurrence)


def test_the_state_is_in_float32():
    """Also that of bfloat16 tokens, whose small entries it would lose."""
    tokens = [jax.ShapeDtypeStruct((2, 3, 2, 4), jnp.bfloat16)] * 3
    (Y, S_last), residuals = jax.eval_shape(RULE.forward, *tokens)
    assert (Y.dtype, S_last.dtype, residuals.S.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)


def test_refusals():
    Q, V = np.ones((2, 5, 3, 4)), np.ones((2, 5, 3, 2))
    refuses(RULE, "Q must have shape (batch, tokens, heads, features), got float64 (2, 5, 3)", Q[..., 0], Q, V)
    refuses(RULE, "Q must have at least one token, head and feature, got float64 (2, 0, 3, 4)", Q[:, :0], Q, V)
    refuses(RULE, "K must have shape (2, 5, 3, 4) like Q, got float64 (2, 5, 1, 4)", Q, Q[:, :, :1], V)
    refuses(RULE, "V must have shape (2, 5, 3, 2) to meet Q …, got float64 (2, 4, 3, 2)", Q, Q, V[:, :4])
    sentence = "log_decay must have shape (2, 5, 3, 4), of which the last may be 1, got float64 (2, 5, 3)"
    refuses(RULE, sentence, Q, Q, V, Q[..., 0])
    refuses(RULE, "bonus must have shape (3, 4) (heads, n), got float64 (4,)", Q, Q, V, Q, Q[0, 0, 0])
    refuses(RULE, "S0 must have shape (2, 3, 4, 2) (one state …), got float64 (2, 3, 4)", Q, Q, V, None, None, Q[:, 0])
    refuses(RULE, "chunk must be a power of two, got 6", Q, Q, V, chunk=6)
    refuses(RULE, "chunk must be a positive integer, got 0", Q, Q, V, chunk=0)
    Y, residuals = jax.eval_shape(lambda *a: RULE.forward(*a, chunk=2), Q, Q, V)
    message = r"^linear_attention_backward: chunk must be the forward pass's, which kept 3 states, got 4$"
    with pytest.raises(hg.InputError, match=message):
        RULE.backward(residuals, Y, chunk=4)
