"""The delta rule, the selective scan and state space duality in another form than their rules', and draws for them."""

import jax
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

    def step(S: Array, t: Arrays) -> tuple[Array, Array]:
        q, k, v, b, a = t
        transition = jnp.eye(k.shape[2], dtype=k.dtype)[None, None] - jnp.einsum("bh,bhi,bhj->bhij", b, k, k)
        S = jnp.einsum("bh,bhij,bhjn->bhin", a, transition, S) + jnp.einsum("bh,bhi,bhn->bhin", b, k, v)
        return S, jnp.einsum("bhin,bhi->bhn", S, q)

    S, Y = jax.lax.scan(step, S, tuple(jnp.moveaxis(A, 1, 0) for A in (q, k, v, b, a)))
    return jnp.moveaxis(Y, 0, 1).astype(jnp.result_type(Q, K, V, beta)), S


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
    """A sum over all steps so far, each decayed since: e^((δ_{s+1} + … + δ_t) A)."""
    x, delta, a, b, c = (P.astype(jnp.promote_types(P.dtype, jnp.float32)) for P in (X, Delta, A, B, C))
    total = jnp.cumsum(delta, axis=1)
    since = jnp.expand_dims(total, 2) - jnp.expand_dims(total, 1)
    seen = jnp.tril(jnp.ones((X.shape[1], X.shape[1]), x.dtype))
    decay = jnp.exp(jnp.einsum("btsi,in->btsin", jnp.maximum(since, 0), a))
    H = jnp.einsum("ts,btsin,bsi,bsn->btin", seen, decay, delta * x, b)
    if H0 is not None:
        H = H + jnp.exp(jnp.einsum("bti,in->btin", total, a)) * jnp.expand_dims(H0.astype(a.dtype), 1)
    Y = jnp.einsum("btin,btn->bti", H, c) + (0 if D is None else D.astype(x.dtype)[None, None] * x)
    arguments = (P for P in (X, Delta, A, B, C, D) if P is not None)
    return Y.astype(jnp.result_type(*arguments)), H[:, -1]


def state_space_duality(
    X: Array,
    Delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    H0: Array | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """The dual form: (L ∘ C Bᵀ) diag(δ) X of each head, L the decays between all pairs of steps."""
    x, delta, a, b, c = (P.astype(jnp.promote_types(P.dtype, jnp.float32)) for P in (X, Delta, A, B, C))
    b, c = (jnp.repeat(P, X.shape[2] // B.shape[2], axis=2) for P in (b, c))
    step = jnp.arange(X.shape[1])
    later = (step[:, None] >= step[None]).astype(x.dtype)  # or the same
    between = jnp.einsum("tr,rs->tsr", later, later - jnp.eye(len(step), dtype=x.dtype))
    L = jnp.einsum("ts,btsh->btsh", later, jnp.exp(jnp.einsum("tsr,brh,h->btsh", between, delta, a)))
    Y = jnp.einsum("btsh,bthz,bshz,bsh,bshn->bthn", L, c, b, delta, x)
    H = jnp.einsum("bsh,bsh,bshn,bshz->bhnz", L[:, -1], delta, x, b)
    if H0 is not None:
        before = jnp.exp(jnp.einsum("tr,brh,h->bth", later, delta, a))
        Y = Y + jnp.einsum("bth,bhnz,bthz->bthn", before, H0.astype(x.dtype), c)
        H = H + jnp.einsum("bh,bhnz->bhnz", before[:, -1], H0.astype(x.dtype))
    if D is not None:
        Y = Y + jnp.einsum("h,bthn->bthn", D.astype(x.dtype), x)
    return Y.astype(jnp.result_type(X, B, C)), H


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


def heads_of_a_state_space(groups: int = 2, skip: bool = True, state: bool = False, step: float = 100) -> Draw:
    """Arguments of state space duality, four heads; one of them ignores a step, and then forgets all before `step`."""
    batch, time, heads, n, states = 2, 5, 4, 2, 3

    def draw(rng: Rng) -> Arrays:
        X, Delta = rng.standard_normal((batch, time, heads, n)), rng.uniform(0, 1, (batch, time, heads))
        Delta[0, 1:3, 0] = 0, step
        A, (B, C) = -rng.uniform(0.5, 3, heads), rng.standard_normal((2, batch, time, groups, states))
        D = rng.standard_normal(heads) if skip else None
        H0 = rng.standard_normal((batch, heads, n, states)) if state else None
        given = X, Delta, A, B, C, D, H0
        return given if state else given[: 6 if skip else 5]

    return draw


CASES = [
    Case(rules.delta_rule, "gated", memory(decays=True, state=True), delta_rule, {"chunk": 2}),
    edge(rules.delta_rule, "no-decay", memory(), delta_rule),
    edge(rules.delta_rule, "forgetting", forgetting, delta_rule),
    Case(rules.selective_scan, "state", state_space(state=True), selective_scan, {"chunk": 2}),
    edge(rules.selective_scan, "no-skip", state_space(skip=False), selective_scan),
    Case(rules.state_space_duality, "state", heads_of_a_state_space(state=True), state_space_duality, {"chunk": 2}),
    edge(rules.state_space_duality, "far", heads_of_a_state_space(state=True, step=1000), state_space_duality),
    edge(rules.state_space_duality, "one-group", heads_of_a_state_space(1, skip=False), state_space_duality),
]
