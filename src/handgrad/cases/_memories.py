"""The recurrences of the delta rule and of the selective scan, as they are defined, and draws for both."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Rng, edge


def delta_rule(
    Q: Array,
    K: Array,
    V: Array,
    beta: Array,
    log_decay: Array | None = None,
    S0: Array | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """A product with a_t (I − β k kᵀ), one step after the other."""
    q, k, v, b = (A.astype(jnp.promote_types(A.dtype, jnp.float32)) for A in (Q, K, V, beta))
    a = jnp.ones_like(b) if log_decay is None else jnp.exp(log_decay.astype(b.dtype))
    S = jnp.zeros((*k.shape[:1], *k.shape[2:], v.shape[3]), k.dtype) if S0 is None else S0.astype(k.dtype)
    Y = []
    for t in range(Q.shape[1]):
        weight = jnp.expand_dims(b[:, t], (2, 3))
        transition = jnp.eye(k.shape[3])[None, None] - weight * jnp.einsum("bhi,bhj->bhij", k[:, t], k[:, t])
        S = jnp.einsum("bh,bhij,bhjn->bhin", a[:, t], transition.astype(S.dtype), S)
        S = S + weight * jnp.einsum("bhi,bhn->bhin", k[:, t], v[:, t])
        Y.append(jnp.einsum("bhin,bhi->bhn", S, q[:, t]))
    return jnp.stack(Y, axis=1).astype(jnp.result_type(Q, K, V, beta)), S


def selective_scan(
    X: Array,
    Delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    H0: Array | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """A sum over all earlier steps, each decayed since: e^((δ_{s+1} + … + δ_t) A)."""
    x, delta, a, b, c = (P.astype(jnp.promote_types(P.dtype, jnp.float32)) for P in (X, Delta, A, B, C))
    time = X.shape[1]
    h0 = jnp.zeros((X.shape[0], *A.shape), a.dtype) if H0 is None else H0.astype(a.dtype)
    Y, H = [], h0
    for t in range(time):
        terms = [jnp.exp(jnp.einsum("bi,in->bin", jnp.sum(delta[:, : t + 1], axis=1), a)) * h0]
        for s in range(t + 1):
            decay = jnp.exp(jnp.einsum("bi,in->bin", jnp.sum(delta[:, s + 1 : t + 1], axis=1), a))
            terms.append(decay * jnp.einsum("bi,bn->bin", delta[:, s] * x[:, s], b[:, s]))
        H = sum(terms[1:], start=terms[0])
        skip = 0 if D is None else D.astype(x.dtype)[None] * x[:, t]
        Y.append(jnp.einsum("bin,bn->bi", H, c[:, t]) + skip)
    arguments = (P for P in (X, Delta, A, B, C, D) if P is not None)
    return jnp.stack(Y, axis=1).astype(jnp.result_type(*arguments)), H


def memory(batch: int = 2, time: int = 5, heads: int = 2, decays: bool = False, state: bool = False) -> Draw:
    """Arguments of the delta rule: keys of length one, β in 0 … 1, log decays of usual size and, one, strong."""
    n_k, n_v = 3, 2

    def draw(rng: Rng) -> Arrays:
        Q, K = (rng.standard_normal((batch, time, heads, n_k)) for _ in range(2))
        V, beta = rng.standard_normal((batch, time, heads, n_v)), rng.uniform(0, 1, (batch, time, heads))
        K /= np.linalg.norm(K, axis=-1, keepdims=True)
        log_decay = -rng.uniform(0, 1, (batch, time, heads)) if decays else None
        S0 = rng.standard_normal((batch, heads, n_k, n_v)) if state else None
        given = Q, K, V, beta, log_decay, S0
        return given if state else given[: 5 if decays else 4]

    return draw


def forgetting(rng: Rng) -> Arrays:
    """Decays of nothing, of all, and of nearly all, one after the other."""
    Q, K, V, beta, log_decay = memory(decays=True)(rng)
    log_decay[:, 1], log_decay[:, 2], log_decay[:, 3] = -np.inf, 0, -1000
    return Q, K, V, beta, log_decay


def state_space(skip: bool = True, state: bool = False, batch: int = 2, time: int = 5) -> Draw:
    """Arguments of the selective scan."""
    n, states = 3, 2

    def draw(rng: Rng) -> Arrays:
        X, Delta = rng.standard_normal((batch, time, n)), rng.uniform(0, 1, (batch, time, n))
        A, (B, C) = -rng.uniform(0.5, 3, (n, states)), (rng.standard_normal((batch, time, states)) for _ in range(2))
        D = rng.standard_normal(n) if skip else None
        H0 = rng.standard_normal((batch, n, states)) if state else None
        given = X, Delta, A, B, C, D, H0
        return given if state else given[: 6 if skip else 5]

    return draw


CASES = [
    Case(rules.delta_rule, "gated", memory(decays=True, state=True), delta_rule, {"chunk": 2}),
    edge(rules.delta_rule, "no-decay", memory(), delta_rule),
    edge(rules.delta_rule, "recurrence", memory(decays=True), delta_rule, {"chunk": 1}),
    edge(rules.delta_rule, "forgetting", forgetting, delta_rule),
    Case(rules.selective_scan, "state", state_space(state=True), selective_scan, {"chunk": 2}),
    edge(rules.selective_scan, "no-skip", state_space(skip=False), selective_scan),
]
