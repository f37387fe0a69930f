"""Quadratic programs of a known solution, and their solution by trying all sets of active constraints."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.cases.case import Arrays, Draw, Rng


def program(*batch: int, n: int = 4, equalities: int = 1, active: int = 1, inactive: int = 2) -> Draw:
    """From the solution: a normal z, multipliers of the active constraints and slacks of the others, ½ at least."""

    def draw(rng: Rng) -> Arrays:
        p = active + inactive
        M, A, G = (rng.standard_normal((*batch, rows, n)) for rows in (n, equalities, p))
        z, nu, far = (rng.standard_normal((*batch, k)) for k in (n, equalities, p))
        far = 0.5 + np.abs(far)
        lam, slack = far * (np.arange(p) < active), far * (np.arange(p) >= active)
        Q = M @ np.swapaxes(M, -1, -2) / n + np.eye(n)
        q = -(times(Q, z) + times(np.swapaxes(A, -1, -2), nu) + times(np.swapaxes(G, -1, -2), lam))
        skew = rng.standard_normal((*batch, n, n)) / 4  # which nobody reads
        equal = (A, times(A, z)) if equalities else (None, None)
        return (Q + skew - np.swapaxes(skew, -1, -2), q, *equal, *((G, times(G, z) + slack) if p else ()))

    return draw


def times(A: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (A @ z[..., None])[..., 0]


def quadratic_program(
    Q: Array,
    q: Array,
    A: Array | None = None,
    b: Array | None = None,
    G: Array | None = None,
    h: Array | None = None,
    iterations: int = 25,
) -> Array:
    """By elimination of z, for every set of active constraints; the set that violates the conditions least."""
    given = [a for a in (Q, q, A, b, G, h) if a is not None]
    dtype = jnp.result_type(*given)
    p = 0 if h is None else h.shape[-1]
    wide = jnp.promote_types(dtype, jnp.float32)
    Q, q = Q.astype(wide), q.astype(wide)
    C = jnp.concatenate([Q[..., :0, :], *(a.astype(wide) for a in (A, G) if a is not None)], axis=-2)
    d = jnp.concatenate([q[..., :0], *(a.astype(wide) for a in (b, h) if a is not None)], axis=-1)
    k = d.shape[-1]

    def of_set(held: Array) -> tuple[Array, Array]:
        held = jnp.broadcast_to(held, d.shape)
        rows = jnp.where(held[..., None], C, 0)
        by_Q = jnp.linalg.solve((Q + Q.mT) / 2, jnp.concatenate([rows.mT, q[..., None]], axis=-1))
        schur = rows @ by_Q[..., :k] + (~held)[..., None] * jnp.broadcast_to(jnp.eye(k, dtype=wide), (*d.shape, k))
        right = jnp.where(held, d, 0)[..., None] + rows @ by_Q[..., k:]
        multipliers = -jnp.linalg.solve(schur, right)
        z = -(by_Q[..., k:] + by_Q[..., :k] @ multipliers)
        beyond = jnp.where(held, -multipliers[..., 0], (C @ z)[..., 0] - d)[..., k - p :]
        return z[..., 0], jnp.max(beyond, axis=-1, initial=0)

    sets = np.array([(True,) * (k - p) + chosen for chosen in itertools.product((False, True), repeat=p)], bool)
    z, worst = jax.vmap(of_set)(jnp.asarray(sets).reshape(len(sets), *(1,) * (d.ndim - 1), k))
    best = jnp.argmin(worst, axis=0)[None, ..., None]
    return jnp.take_along_axis(z, jnp.broadcast_to(best, (1, *z.shape[1:])), axis=0)[0].astype(dtype)
