"""Linear attention by its definition, one step after the other, every state made; and the shift before RWKV's."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Rng, edge, normal


def linear_attention(
    Q: Array,
    K: Array,
    V: Array,
    log_decay: Array | None = None,
    bonus: Array | None = None,
    S0: Array | None = None,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """S_t = a_t ∘ S_{t−1} + k_t v_tᵀ; the state is in float32 at least."""
    given = [A for A in (Q, K, V, log_decay, bonus, S0) if A is not None]
    (batch, tokens, heads, n), n_v = Q.shape, V.shape[3]
    S = jnp.zeros((batch, heads, n, n_v), Q.dtype) if S0 is None else S0
    Y = []
    for t in range(tokens):
        new = jnp.einsum("bhn,bhv->bhnv", K[:, t], V[:, t])
        before = S
        S = new + (S if log_decay is None else jnp.expand_dims(jnp.exp(log_decay[:, t]), 3) * S)
        read = S if bonus is None else before + jnp.expand_dims(bonus, (0, 3)) * new
        Y.append(jnp.einsum("bhn,bhnv->bhv", Q[:, t], read))
    wide = jnp.promote_types(jnp.result_type(*given), jnp.float32)
    return jnp.stack(Y, axis=1).astype(jnp.result_type(Q, K, V)), S.astype(wide)


def token_shift(X: Array, mu: Array, x0: Array | None = None) -> Array:
    """A mean of two rows for each token, by index."""
    rows = jnp.concatenate([jnp.expand_dims(jnp.zeros_like(X[:, 0]) if x0 is None else x0, 1), X], axis=1)
    both = jnp.stack([rows[:, :-1], rows[:, 1:]])
    return jnp.einsum("wbtn,wn->btn", both, jnp.stack([mu, 1 - mu]))


def drawn(
    tokens: int, decay: str | None = None, bonus: bool = False, state: bool = False, forgets: bool = False
) -> Draw:
    """Normal arguments; the decay of a "head" or of each "feature", of which one is of no memory at all."""
    batch, heads, n, n_v = 3, 2, 3, 2

    def draw(rng: Rng) -> Arrays:
        Q, K = rng.standard_normal((2, batch, tokens, heads, n))
        log_decay = u = S0 = None
        if decay is not None:
            log_decay = -rng.exponential(0.5, (batch, tokens, heads, 1 if decay == "head" else n))
        if forgets and log_decay is not None:
            log_decay[0, tokens // 2] = -np.inf
        if bonus:
            u = rng.standard_normal((heads, n))
        if state:
            S0 = rng.standard_normal((batch, heads, n, n_v))
        return Q, K, rng.standard_normal((batch, tokens, heads, n_v)), log_decay, u, S0

    return draw


EVERYTHING = drawn(7, "feature", bonus=True, state=True)
RULE = rules.linear_attention

CASES = [
    Case(RULE, "features", EVERYTHING, linear_attention, {"chunk": 4}),
    edge(RULE, "heads", drawn(5, "head", bonus=True, state=True), linear_attention),
    edge(RULE, "no-decay", drawn(3), linear_attention),
    edge(RULE, "step-by-step", EVERYTHING, linear_attention, {"chunk": 1}),
    edge(RULE, "forgets", drawn(6, "feature", forgets=True), linear_attention, {"chunk": 8}),
    Case(rules.token_shift, "tokens", normal((3, 4, 2), (2,), (3, 2)), token_shift),
    edge(rules.token_shift, "from-zeros", normal((2, 1, 3), (3,)), token_shift),
]
