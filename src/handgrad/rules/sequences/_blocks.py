"""How linear attention cuts time: into chunks, and a chunk into blocks of 1, 2, 4, … tokens, two of which make one.

From a token j in the first block of a pair to a token i in the second, the decay is e^(F_i + G_j): G_j sums the log
decays behind j, to the end of its block, F_i those from the start of its block to i. Every exponent is a sum of numbers
that aren't positive: no exponential is above 1, and nothing is a difference of two long sums.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, check_count

PerToken = Float[Array, "batch tokens heads _m"]
Chunks = Float[Array, "chunks batch heads chunk _m"]
Blocks = Float[Array, "chunks batch heads _blocks _block _m"]
State = Float[Array, "batch heads n n_v"]
States = Float[Array, "chunks batch heads n n_v"]


class Decays(NamedTuple):
    """Sums of log decays inside blocks of one size; or the cotangents of these.

    Attributes:
      F: from the block's first token to the state that a token reads.
      G: from the token behind to the block's last.
      total: over the block.
    """

    F: Blocks
    G: Blocks
    total: Float[Array, "chunks batch heads _blocks 1 _m"]


def chunk_of(
    where: str, chunk: int | None, tokens: int, n: int, n_v: int, of_features: bool = False, S: States | None = None
) -> int:
    """The tokens of a chunk: `chunk`, or, for None, a size that is fast. S are the states that the forward pass kept.

    A token costs about chunk (n + n_v) operations inside, and n n_v / chunk for the states between, with a large
    factor, since they only move memory; the blocks of features that decay alone (of_features) cost more.
    """
    if chunk is None:
        factor = 32 if of_features else 128
        sizes = [2**i for i in range(8) if 2 ** (i - 1) < tokens]
        size = min(sizes, key=lambda size: size * (n + n_v) + factor * n * n_v / size)
    else:
        check_count(where, "chunk", chunk)
        size = chunk
    if size & (size - 1):
        raise InputError(f"{where}: chunk must be a power of two, got {size}")
    if S is not None and S.shape[0] != -(-tokens // size):
        raise InputError(f"{where}: chunk must be the forward pass's, which kept {S.shape[0]} states, got {size}")
    return size


def decays(log_decay: Chunks, reads_before: bool) -> list[Decays]:
    """The sums for blocks of 1, 2, 4, … tokens, the last of a chunk. A token reads the state behind it, or before."""
    steps = jnp.expand_dims(log_decay, 4)
    levels = [Decays(jnp.zeros_like(steps) if reads_before else steps, jnp.zeros_like(steps), steps)]
    while levels[-1].F.shape[3] > 1:
        (F0, F1), (G0, G1), (total0, total1) = map(neighbors, levels[-1])
        levels.append(Decays(joined(F0, total0 + F1), joined(G0 + total1, G1), total0 + total1))
    return levels


def of_neighbors(d: Decays, dF1: Blocks, dG0: Blocks) -> Decays:
    """The cotangents of two blocks: from those of the block that they make, and dF1, dG0 from their own product."""
    (of_F0, of_F1), (of_G0, of_G1) = (jnp.split(A, 2, axis=4) for A in (d.F, d.G))
    total0, total1 = (d.total + jnp.sum(A, axis=4, keepdims=True) for A in (of_F1, of_G0))
    return Decays(apart(of_F0, of_F1 + dF1), apart(of_G0 + dG0, of_G1), apart(total0, total1))


def is_of_heads(levels: list[Decays]) -> bool:
    """Whether one decay is that of all features of a head, so that a chunk's triangle is one matrix."""
    return levels[0].F.shape[-1] == 1


def triangle(levels: list[Decays]) -> Float[Array, "#chunks #batch #heads chunk chunk"]:
    """The decays from each token of a chunk to each that follows, zeros elsewhere; of one decay a head."""
    W = jnp.zeros_like(levels[0].F)
    for of_block in levels[:-1]:
        low = jnp.exp(neighbors(of_block.F)[1] + jnp.matrix_transpose(neighbors(of_block.G)[0]))
        W0, W1 = neighbors(W)
        W = joined(*(jnp.concatenate(row, axis=5) for row in ((W0, jnp.zeros_like(W0)), (low, W1))))
    return W[:, :, :, 0]


def of_triangle(d: Decays, E: Float[Array, "chunks batch heads chunk chunk"]) -> Decays:
    """The cotangents of single tokens: from those of the chunk, and E, those of the triangle's exponents."""
    E = jnp.expand_dims(E, 3)
    while (block := E.shape[5] // 2) > 0:
        low = E[:, :, :, :, block:, :block]
        dF1, dG0 = jnp.sum(low, axis=5, keepdims=True), jnp.sum(low, axis=4, keepdims=True)
        d = of_neighbors(d, dF1, jnp.matrix_transpose(dG0))
        E = apart(E[:, :, :, :, :block, :block], E[:, :, :, :, block:, block:])
    return d


def decayed(of_block: Decays, q: Chunks, k: Chunks, v: Chunks) -> tuple[Blocks, Blocks, Blocks]:
    """q₁ ∘ e^F₁, k₀ ∘ e^G₀ and v₀: of each pair of blocks, the second's queries, the first's keys and values."""
    block = of_block.F.shape[4]
    q1, (k0, v0) = neighbors(in_blocks(q, block))[1], (neighbors(in_blocks(A, block))[0] for A in (k, v))
    return q1 * jnp.exp(neighbors(of_block.F)[1]), k0 * jnp.exp(neighbors(of_block.G)[0]), v0


def neighbors(A: Blocks) -> tuple[Blocks, Blocks]:
    """The first and the second block of each pair."""
    A = A.reshape(*A.shape[:3], A.shape[3] // 2, 2, *A.shape[4:])
    return A[:, :, :, :, 0], A[:, :, :, :, 1]


def apart(first: Blocks, second: Blocks) -> Blocks:
    """The inverse of `neighbors`."""
    pairs = jnp.stack([first, second], axis=4)
    return pairs.reshape(*first.shape[:3], 2 * first.shape[3], *first.shape[4:])


def joined(first: Blocks, second: Blocks) -> Blocks:
    """Each pair of blocks as one block."""
    return jnp.concatenate([first, second], axis=4)


def in_blocks(A: Chunks, block: int) -> Blocks:
    """Each chunk as blocks of so many tokens."""
    return A.reshape(*A.shape[:3], A.shape[3] // block, block, A.shape[4])


def plus(A: Chunks, first: Blocks | None = None, second: Blocks | None = None) -> Chunks:
    """A plus these numbers in the first block of each pair, or in the second."""
    block = next(B.shape[4] for B in (first, second) if B is not None)
    A0, A1 = neighbors(in_blocks(A, block))
    return joined(A0 if first is None else A0 + first, A1 if second is None else A1 + second).reshape(A.shape)


def over(dA: Array, like: Array) -> Array:
    """Summed over the features where one decay is all of theirs."""
    return dA if like.shape[-1] == dA.shape[-1] else jnp.sum(dA, axis=-1, keepdims=True)


def in_chunks(A: PerToken, chunk: int, dtype: DTypeLike) -> Chunks:
    """The chunks of a sequence, each with its heads in front; zeros behind the last token, which change no state."""
    batch, tokens, heads, m = A.shape
    A = jnp.pad(A.astype(dtype), [(0, 0), (0, -tokens % chunk), (0, 0), (0, 0)])
    return jnp.transpose(A.reshape(batch, A.shape[1] // chunk, chunk, heads, m), (1, 0, 3, 2, 4))


def in_order(A: Chunks, tokens: int) -> PerToken:
    """The inverse of `in_chunks`."""
    chunks, batch, heads, chunk, m = A.shape
    return jnp.transpose(A, (1, 0, 3, 2, 4)).reshape(batch, chunks * chunk, heads, m)[:, :tokens]


def product(subscripts: str, A: Array, B: Array) -> Array:
    """einsum of the last two axes of both, a product of matrices for everything in front of them."""
    one, other, out = subscripts.replace("->", ",").split(",")
    front = "abcd"[: A.ndim - 2]
    return meshes.einsum(f"{front}{one},{front}{other}->{front}{out}", A, B)


def carried(
    S0: State | None, total: Float[Array, "#chunks #batch #heads 1 m"], U: States, reverse: bool = False
) -> tuple[States, State]:
    """S_c = e^total_c ∘ S_{c−1} + U_c: the state before each chunk, and that behind the last; or in reverse."""

    def step(S: State, chunk: tuple[Array, State]) -> tuple[State, State]:
        decay, U = chunk
        return decay * S + U, S

    first = jnp.zeros_like(U[0]) if S0 is None else S0.astype(U.dtype)
    decay = jnp.exp(jnp.swapaxes(total, 3, 4))
    decay = jnp.broadcast_to(decay, (U.shape[0], *decay.shape[1:]))
    last, S = meshes.scan(step, first, (decay, U), reverse=reverse)
    return S, last
