"""Attention from its definition, whole and in tiles, and the rotary position embedding by its rotation matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Rng, Shape, edge, normal


def attention(
    Q: Array,
    K: Array,
    V: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    key: Array | None = None,
    sinks: Array | None = None,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    alibi: tuple[float, ...] | None = None,
    tile: int | None = None,
) -> Array:
    """Keys and values repeated for each head of a group, heads in front, a sink as one more key; a tile changes
    nothing."""
    tokens, keys, heads = Q.shape[1], K.shape[1], Q.shape[2]
    Q, K, V = (jnp.swapaxes(jnp.repeat(A, heads // A.shape[2], axis=2), 1, 2) for A in (Q, K, V))
    S = (Q @ jnp.matrix_transpose(K)) * (1 / np.sqrt(Q.shape[-1]) if scale is None else scale)
    S = S if softcap is None else softcap * jnp.tanh(S / softcap)
    S = S if bias is None else S + jnp.broadcast_to(bias, S.shape)
    if alibi is not None:
        distance = np.abs(np.arange(tokens)[:, None] - np.arange(keys))
        S = S - jnp.asarray(np.multiply.outer(alibi, distance)[None], S.dtype)
    seen = np.ones((tokens, keys), bool)
    seen = np.tril(seen) if causal else seen
    seen = seen if window is None else np.triu(np.tril(seen, window - 1), 1 - window)
    seen = jnp.broadcast_to(seen[None, None], S.shape)
    seen = seen if mask is None else seen & jnp.broadcast_to(mask, S.shape)
    if sinks is not None:
        of_all = jnp.broadcast_to(sinks.astype(S.dtype)[None, :, None, None], (*S.shape[:3], 1))
        S, seen = jnp.concatenate([S, of_all], axis=-1), jnp.pad(seen, [(0, 0)] * 3 + [(0, 1)], constant_values=True)
    P = jax.nn.softmax(S, axis=-1, where=seen)[..., :keys]
    if key is not None and dropout:
        rows = [[jax.random.fold_in(jax.random.fold_in(key, i), j) for j in range(keys)] for i in range(tokens)]
        kept = [[jax.random.bernoulli(one, 1 - dropout, P.shape[:2]) for one in row] for row in rows]
        P = P * jnp.moveaxis(jnp.array(kept), (0, 1), (2, 3)) / (1 - dropout)
    return jnp.swapaxes(P @ V, 1, 2).astype(jnp.result_type(Q, K, V))


def speed_and_size(i: int, n: int, base: float, scaling: Any, tokens: int) -> tuple[float, float]:
    """The speed of pair i, and the size of what rotates, by the formulas of Hugging Face's transformers: in
    wavelengths for Llama 3, with a corrected base for NTK, a range of pairs for YaRN."""
    speed = base ** (-2 * i / n)
    if scaling is None:
        return speed, 1.0
    factor = scaling.factor
    original: Any = getattr(scaling, "original_tokens", None)
    if isinstance(scaling, rules.LinearScaling):
        return 1 / (factor * base ** (2 * i / n)), 1.0
    if isinstance(scaling, rules.NtkScaling):
        ratio = factor if original is None else factor * max(tokens, original) / original - (factor - 1)
        return (base * ratio ** (n / (n - 2))) ** (-2 * i / n), 1.0
    if isinstance(scaling, rules.Llama3Scaling):
        wavelength = 2 * np.pi / speed
        if wavelength < original / scaling.high:
            return speed, 1.0
        if wavelength > original / scaling.low:
            return speed / factor, 1.0
        smooth = (original / wavelength - scaling.low) / (scaling.high - scaling.low)
        return (1 - smooth) * speed / factor + smooth * speed, 1.0
    first, last = (
        n * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    )
    first, last = max(np.floor(first), 0), min(np.ceil(last), n - 1)
    unscaled = 1 - min(max((i - first) / (last - first), 0), 1)
    return (1 / factor) * speed * (1 - unscaled) + speed * unscaled, 0.1 * np.log(factor) + 1


def rotary(
    X: Array,
    positions: Array,
    base: float = 10000.0,
    form: str = "half",
    features: int | None = None,
    scaling: Any = None,
) -> Array:
    """Y = R(θ) X for each token, R (n, n) with a block of 2 × 2 for each pair, and 1 for a feature of none."""
    n = X.shape[-1] if features is None else features
    if n < X.shape[-1]:
        others = X[..., n:]
        return jnp.concatenate([rotary(X[..., :n], positions, base, form, None, scaling), others], axis=-1)
    dtype = jnp.promote_types(X.dtype, jnp.float32)
    speeds, sizes = zip(*(speed_and_size(i, n, base, scaling, X.shape[1]) for i in range(n // 2)), strict=True)
    angles = positions[..., None].astype(dtype) * jnp.broadcast_to(
        jnp.asarray(speeds, dtype), (*positions.shape, n // 2)
    )
    one, other = (
        (np.arange(n // 2), np.arange(n // 2, n)) if form == "half" else (np.arange(0, n, 2), np.arange(1, n, 2))
    )
    R = jnp.zeros((*positions.shape, n, n), dtype)
    R = R.at[..., one, one].set(jnp.cos(angles)).at[..., other, other].set(jnp.cos(angles))
    R = R.at[..., one, other].set(-jnp.sin(angles)).at[..., other, one].set(jnp.sin(angles))
    letters = "tij,bthj->bthi" if positions.ndim == 1 else "btij,bthj->bthi"
    return jnp.einsum(letters, sizes[0] * R, X.astype(dtype)).astype(X.dtype)


def relative_position_bias(S: Array, table: Array, bidirectional: bool = True, max_distance: int = 128) -> Array:
    """A product with one-hot rows, each bucket by T5's formula in logarithms."""

    def bucket(ahead: int) -> int:
        each, first = (len(table) // 2, len(table) // 2 * (ahead > 0)) if bidirectional else (len(table), 0)
        exact, away = each // 2, abs(ahead) if bidirectional else max(-ahead, 0)
        if away < exact:
            return first + away
        wider = np.log(away / exact) / np.log(max_distance / exact) * (each - exact)
        return first + min(exact + int(wider + 1e-9), each - 1)

    tokens, keys = S.shape[2:]
    one_hot = np.eye(len(table))[[[bucket(j - i) for j in range(keys)] for i in range(tokens)]]
    return S + jnp.einsum("ijr,rh->hij", jnp.asarray(one_hot, table.dtype), table)[None]


def drawn(
    *sizes: int, bias: Shape | None = None, mask: Shape | None = None, dropout: bool = False, sinks: bool = False
) -> Draw:
    """Q, K, V of (batch, tokens, keys, heads, kv_heads, n, n_v); a bias; a mask that hides about a third and leaves
    every query its own key; a random key; sinks."""
    batch, tokens, keys, heads, kv_heads, n, n_v = sizes
    shapes = (batch, tokens, heads, n), (batch, keys, kv_heads, n), (batch, keys, kv_heads, n_v)

    def draw(rng: Rng) -> Arrays:
        arrays: list[Any] = [*normal(*shapes)(rng), None if bias is None else rng.standard_normal(bias)]
        if mask is not None:
            arrays.append((rng.uniform(size=mask) < 0.6) | np.eye(*mask[-2:], dtype=bool))
        if dropout or sinks:
            arrays.append(jax.random.key(3) if dropout else None)
        if sinks:
            arrays.append(rng.standard_normal(heads))
        return tuple(arrays[: 3 if arrays[3:] == [None] else None])

    return draw


def at(shape: Shape, *positions: Any) -> Draw:
    """Normal numbers at these positions."""
    return lambda rng: (rng.standard_normal(shape), np.array(positions))


def of_both(name: str, draw: Draw, tile: int, tests_only: bool = True, **options: Any) -> list[Case]:
    """One row for each form of attention. Random bits don't round, and take longest to compile: in float64 alone."""
    reduced = () if "dropout" in options else (jnp.float32, jnp.bfloat16)
    in_tiles = {**options, "tile": tile}
    return [
        Case(rule, name, draw, attention, given, tests_only=tests_only, reduced=reduced)
        for rule, given in ((rules.attention, options), (rules.tiled_attention, in_tiles))
    ]


OPTIONS = {"causal": True, "window": 3, "softcap": 2.0, "scale": 0.7}
BIASED = drawn(2, 4, 4, 4, 2, 2, 3, bias=(1, 4, 1, 4), mask=(2, 1, 4, 4))
WITH_SINKS = drawn(2, 3, 5, 2, 1, 3, 2, mask=(2, 1, 3, 5), sinks=True)
ONE_TOKEN = drawn(2, 1, 3, 1, 1, 1, 1, mask=(2, 1, 1, 3))
DROPPED = drawn(2, 5, 5, 4, 2, 3, 2, bias=(2, 1, 5, 5), mask=(1, 4, 5, 5), dropout=True)

SCALED: list[dict[str, Any]] = [
    {"features": 8, "scaling": rules.LinearScaling(4.0)},
    {"scaling": rules.NtkScaling(4.0)},
    {"scaling": rules.NtkScaling(2.0, 2), "form": "interleaved"},
    {"scaling": rules.YarnScaling(4.0, 64, beta_fast=4.0), "base": 100.0, "features": 8},
    {"scaling": rules.Llama3Scaling(8.0, 64), "base": 100.0},
]
NEAR, BEHIND = {"max_distance": 6}, {"bidirectional": False, "max_distance": 5}

CASES = [
    *of_both("cross", drawn(2, 3, 5, 2, 2, 4, 3), 2, tests_only=False),
    *of_both("options", BIASED, 3, tests_only=False, **OPTIONS),
    *of_both("everything", DROPPED, 2, dropout=0.4, **OPTIONS),
    *of_both("sinks", WITH_SINKS, 2, alibi=(0.5, 0.125)),
    edge(rules.attention, "one-token", ONE_TOKEN, attention),
    edge(rules.tiled_attention, "one-tile", ONE_TOKEN, attention),
    edge(rules.tiled_attention, "many-keys", drawn(1, 1, 520, 1, 1, 1, 1), attention),
    *of_both("empty", drawn(0, 2, 3, 2, 1, 2, 2), 2),
    Case(rules.rotary, "half", at((2, 3, 2, 6), 0, 1, 2), rotary),
    Case(rules.rotary, "interleaved", at((2, 3, 2, 6), 5, 1, 700), rotary, {"form": "interleaved", "base": 100.0}),
    edge(rules.rotary, "each-its-own", at((2, 3, 1, 4), [0, 1, 2], [4, 3, -7]), rotary, {"base": 50.0}),
    edge(rules.rotary, "one-pair", at((1, 1, 1, 2), 3), rotary, {"form": "interleaved"}),
    Case(rules.relative_position_bias, "square", normal((2, 2, 9, 9), (8, 2)), relative_position_bias, NEAR),
    edge(rules.relative_position_bias, "one-direction", normal((3, 1, 3, 7), (6, 1)), relative_position_bias, BEHIND),
    edge(rules.relative_position_bias, "longer", normal((1, 2, 30, 2), (4, 2)), relative_position_bias),
    *(edge(rules.rotary, "scaled", at((1, 3, 1, 10), 9, 40, 63), rotary, scaled) for scaled in SCALED),
]
