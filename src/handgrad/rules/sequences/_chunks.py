"""What the rules in chunks share: how time is cut into chunks, as a scan over them reads it, and decays inside one."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from handgrad import meshes
from handgrad.checks import InputError, check_count

FORGETS = -1e4  # e to this power is 0 in every dtype; unlike −∞, it may be multiplied by 0


@dataclass(frozen=True)
class Chunks:
    """`time` steps in `count` chunks of `size` steps; zeros pad the last one."""

    time: int
    count: int
    size: int

    @classmethod
    def of(cls, where: str, time: int, chunk: int) -> "Chunks":
        """As few chunks as there can be with at most `chunk` steps, all of one size."""
        check_count(where, "chunk", chunk)
        count = -(-time // chunk)
        return cls(time, count, max(1, -(-time // max(1, count))))

    def of_states(self, where: str, states: Float[Array, "chunks ..."]) -> "Chunks":
        """The same, if these are the states that the forward pass kept."""
        if len(states) != self.count:
            raise InputError(
                f"{where}: chunk must be the forward pass's, which kept {len(states)} states, not {self.count}"
            )
        return self

    def split(self, A: Shaped[Array, "*axes"], axis: int) -> Shaped[Array, "chunks ..."]:
        """A's axis of time in chunks, and these in front."""
        missing = [(0, self.count * self.size - self.time if i == axis else 0) for i in range(A.ndim)]
        A = jnp.pad(A, missing) if any(map(any, missing)) else A
        return jnp.moveaxis(A.reshape(*A.shape[:axis], self.count, self.size, *A.shape[axis + 1 :]), axis, 0)

    def join(self, A: Shaped[Array, "chunks ..."], axis: int) -> Shaped[Array, "*axes"]:
        """The inverse of `split`."""
        A = jnp.moveaxis(A, 0, axis)
        A = A.reshape(*A.shape[:axis], self.count * self.size, *A.shape[axis + 2 :])
        return A[(slice(None),) * axis + (slice(self.time),)]

    def of_heads(self, A: Shaped[Array, "batch time heads ..."]) -> Shaped[Array, "chunks batch heads size ..."]:
        """Heads before steps, in chunks."""
        return self.split(jnp.moveaxis(A, 2, 1), 2)

    def to_heads(self, A: Shaped[Array, "chunks batch heads size ..."]) -> Shaped[Array, "batch time heads ..."]:
        """The inverse of `of_heads`."""
        return jnp.moveaxis(self.join(A, 2), 1, 2)


def decays(log_decay: Float[Array, "batch heads C"]) -> Float[Array, "batch heads C C1"]:
    """e^(g_{s+1} + … + g_t) in row t = 1 … C and column s = 0 … C, the decays inside a chunk; 1 where s ≥ t.

    Each sum is of its own terms alone: a difference of two sums from the start, which may be long, would lose digits.
    """
    sums, later = _segments(log_decay.shape[-1], log_decay.dtype)
    terms = later[None, None] * jnp.expand_dims(jnp.maximum(log_decay, FORGETS), -1)
    return jnp.exp(jnp.einsum("tr,bhrs->bhts", sums, terms, precision=jax.lax.Precision.HIGHEST))


def decays_back(dlogs: Float[Array, "batch heads C C1"]) -> Float[Array, "batch heads C"]:
    """The cotangent of log_decay from that of the sums: g_r is part of all with s < r ≤ t."""
    sums, later = _segments(dlogs.shape[-2], dlogs.dtype)
    dterms = jnp.einsum("tr,bhts->bhrs", sums, dlogs, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(later[None, None] * dterms, axis=-1)


def pairwise_sum(A: Float[Array, "*axes"], axis: int) -> Float[Array, "*others"]:
    """The sum over an axis in front of others, by halves. XLA on CPU has no vector instructions for such a jnp.sum, and
    takes five times as long."""
    if A.shape[axis] == 0:
        return jnp.sum(A, axis)
    while (n := A.shape[axis]) > 1:
        half = n // 2
        one, two = (jax.lax.slice_in_dim(A, at, at + half, axis=axis) for at in (0, half))
        odd = [jax.lax.slice_in_dim(A, 2 * half, n, axis=axis)] * (n % 2)
        A = jnp.concatenate([one + two, *odd], axis) if odd else one + two
    return jnp.squeeze(A, axis)


def unit_lower_inverse(L: Float[Array, "*batch C C"]) -> Float[Array, "*batch C C"]:
    """(I + L)⁻¹ for an L below the diagonal, from the inverses of its halves: products of matrices alone.

        [A 0; B D]⁻¹ = [A⁻¹ 0; −D⁻¹ B A⁻¹ D⁻¹]

    LAPACK is as fast on an idle machine, but its own threads contend for a busy CPU.
    """
    n = L.shape[-1]
    if n == 1:
        return jnp.ones_like(L)
    half = -(-n // 2)
    L = jnp.pad(L, [(0, 0)] * (L.ndim - 2) + [(0, n % 2)] * 2)
    both = unit_lower_inverse(jnp.stack([L[..., :half, :half], L[..., half:, half:]]))
    below = -_matmul(_matmul(both[1], L[..., half:, :half]), both[0])
    rows = [both[0], jnp.zeros_like(below)], [below, both[1]]
    return jnp.concatenate([jnp.concatenate(row, axis=-1) for row in rows], axis=-2)[..., :n, :n]


def _matmul(A: Float[Array, "*batch m n"], B: Float[Array, "*batch n k"]) -> Float[Array, "*batch m k"]:
    return meshes.einsum("...ij,...jk->...ik", A, B)


def _segments(steps: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """[r ≤ t] for each (t, r), and [r > s] for each (r, s): of both, the terms of each sum."""
    t, s = np.arange(1, steps + 1), np.arange(steps + 1)
    return (t[None] <= t[:, None]).astype(dtype), (t[:, None] > s[None]).astype(dtype)
