"""What do recurrences of matrices cost in chunks, against jax.grad of the plain scan over time?

Forward and backward pass in one jit, float32: process CPU time of pairs in turn, and XLA's temporary memory. The two
answers are compared.

    python experiments/chunked_scans.py --out runs/chunked_scans.json
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import study
from jaxtyping import Array

import handgrad as hg
from handgrad import rules
from handgrad.rules import Rule


@dataclass(frozen=True)
class Options:
    """Compare time and memory of chunked forms with jax.grad of the recurrence."""

    time: int = 1024
    """Steps."""
    batch: int = 2
    """Examples."""
    heads: int = 4
    """Heads of linear attention and of the delta rule."""
    features: int = 64
    """Features of a head's keys, and of its values."""
    channels: int = 256
    """Features of the selective scan."""
    states: int = 16
    """States of each of them."""
    repeats: int = 10
    """Pairs that are timed."""
    out: Path = Path("runs/chunked_scans.json")
    """Where the figures go."""


class Subject(NamedTuple):
    """A rule, the plain scan that computes the same, and the arguments of both."""

    rule: Rule[..., Any]
    scan: Callable[..., tuple[Array, Array]]
    arguments: tuple[np.ndarray, ...]


def linear_attention(
    Q: Array, K: Array, V: Array, log_decay: Array | None = None, bonus: Array | None = None
) -> tuple[Array, Array]:
    """One step after the other: (Y, S)."""

    def step(S: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, *g = inputs
        new = k[..., :, None] * v[..., None, :]
        decay = jnp.exp(g[0])[..., None] if g else 1
        if bonus is not None:
            return decay * S + new, jnp.einsum("bhij,bhi->bhj", S + bonus[None, :, :, None] * new, q)
        S = decay * S + new
        return S, jnp.einsum("bhij,bhi->bhj", S, q)

    S = jnp.zeros((*K.shape[:1], *K.shape[2:], V.shape[3]), K.dtype)
    S, Y = jax.lax.scan(step, S, tuple(jnp.moveaxis(A, 1, 0) for A in (Q, K, V, log_decay) if A is not None))
    return jnp.moveaxis(Y, 0, 1), S


def delta_rule(Q: Array, K: Array, V: Array, beta: Array, log_decay: Array | None = None) -> tuple[Array, Array]:
    """One step after the other: (Y, S)."""

    def step(S: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, b, *g = inputs
        S = S if not g else jnp.exp(g[0])[..., None, None] * S
        u = b[..., None] * (v - jnp.einsum("bhij,bhi->bhj", S, k))
        S = S + k[..., :, None] * u[..., None, :]
        return S, jnp.einsum("bhij,bhi->bhj", S, q)

    S = jnp.zeros((*K.shape[:1], *K.shape[2:], V.shape[3]), K.dtype)
    S, Y = jax.lax.scan(step, S, tuple(jnp.moveaxis(A, 1, 0) for A in (Q, K, V, beta, log_decay) if A is not None))
    return jnp.moveaxis(Y, 0, 1), S


def selective_scan(X: Array, Delta: Array, A: Array, B: Array, C: Array, D: Array) -> tuple[Array, Array]:
    """One step after the other: (Y, H)."""

    def step(H: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        x, delta, b, c = inputs
        H = jnp.exp(delta[..., None] * A[None]) * H + (delta * x)[..., None] * b[:, None]
        return H, jnp.einsum("bnz,bz->bn", H, c) + D[None] * x

    H = jnp.zeros((X.shape[0], *A.shape), X.dtype)
    H, Y = jax.lax.scan(step, H, tuple(jnp.moveaxis(P, 1, 0) for P in (X, Delta, B, C)))
    return jnp.moveaxis(Y, 0, 1), H


def state_space_duality(X: Array, Delta: Array, A: Array, B: Array, C: Array, D: Array) -> tuple[Array, Array]:
    """One step after the other, all heads with the same B and C: (Y, H)."""

    def step(H: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        x, delta, b, c = inputs
        new = (delta[..., None] * x)[..., None] * b[:, :, None]
        H = jnp.exp(delta * A[None])[..., None, None] * H + new
        return H, jnp.einsum("bhnz,bhz->bhn", H, c + jnp.zeros_like(x[..., :1])) + D[None, :, None] * x

    H = jnp.zeros((X.shape[0], *X.shape[2:], B.shape[3]), X.dtype)
    H, Y = jax.lax.scan(step, H, tuple(jnp.moveaxis(P, 1, 0) for P in (X, Delta, B, C)))
    return jnp.moveaxis(Y, 0, 1), H


def subjects(options: Options) -> dict[str, Subject]:
    """What is measured, by name."""
    rng = np.random.default_rng(0)
    steps = (options.batch, options.time)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, shape).astype(np.float32)

    Q, K, V = (normal(*steps, options.heads, options.features) for _ in range(3))
    K /= np.linalg.norm(K, axis=-1, keepdims=True)
    beta, log_decay = uniform(0, 1, *steps, options.heads), uniform(-0.2, 0, *steps, options.heads)
    X, Delta = normal(*steps, options.channels), uniform(0, 0.1, *steps, options.channels)
    of_groups = tuple(normal(*steps, 1, options.features) for _ in range(2))
    step_sizes = uniform(0, 0.1, *steps, options.heads)
    ssd = (V, step_sizes, uniform(-16, -1, options.heads), *of_groups, normal(options.heads))
    A, B, C = uniform(-16, -1, options.channels, options.states), *(normal(*steps, options.states) for _ in range(2))
    of_heads, of_features = (uniform(-0.2, 0, *steps, options.heads, n) for n in (1, options.features))
    bonus = normal(options.heads, options.features)

    def linear(*decay_and_bonus: np.ndarray) -> Subject:
        return Subject(rules.linear_attention, linear_attention, (Q, K, V, *decay_and_bonus))

    return {
        "linear attention": linear(),
        "a decay for each head": linear(of_heads),
        "a decay for each feature": linear(of_features),
        "and a bonus": linear(of_features, bonus),
        "delta rule": Subject(rules.delta_rule, delta_rule, (Q, K, V, beta)),
        "gated delta rule": Subject(rules.delta_rule, delta_rule, (Q, K, V, beta, log_decay)),
        "state space duality": Subject(rules.state_space_duality, state_space_duality, ssd),
        "selective scan": Subject(rules.selective_scan, selective_scan, (X, Delta, A, B, C, normal(options.channels))),
    }


def measured(subject: Subject, repeats: int) -> dict[str, float]:
    """Ratios of time and memory, the bytes, and the largest relative difference of the answers."""
    rule, scan, arguments = subject

    def by_hand(dY: Any, arguments: Any) -> Any:
        Y, residuals = rule.forward(*arguments)
        return Y, hg.materialize(rule.backward(residuals, dY)[: len(arguments)])

    def by_autodiff(dY: Any, arguments: Any) -> Any:
        Y, pullback = jax.vjp(scan, *arguments)
        return Y, pullback(dY)

    rng = np.random.default_rng(1)
    like = jax.eval_shape(scan, *arguments)
    dY = jax.tree.map(lambda y: rng.standard_normal(y.shape).astype(np.float32), like)
    ways = {"by hand": by_hand, "jax.grad": by_autodiff}
    compiled = {name: jax.jit(way).lower(dY, arguments).compile() for name, way in ways.items()}
    one, other = (jax.tree.leaves(program(dY, arguments)) for program in compiled.values())
    runs = {name: lambda program=program: program(dY, arguments) for name, program in compiled.items()}
    seconds = study.in_turn(runs, repeats, clock=time.process_time)
    temp = {name: study.temp_bytes(program) for name, program in compiled.items()}
    return {
        "time": study.ratio(seconds["by hand"], seconds["jax.grad"]),
        "memory": temp["by hand"] / temp["jax.grad"],
        "memory_bytes": temp["by hand"],
        "scan_memory_bytes": temp["jax.grad"],
        "apart": max(study.relative_error(a, b) for a, b in zip(one, other, strict=True)),
    }


def run(options: Options) -> dict[str, dict[str, float]]:
    """Print the table, write the figures, return its rows by name."""
    study.begin("chunked_scans", options, "time", "batch", "heads", "features", "channels", "states", "repeats")
    table = study.table(
        "in chunks / jax.grad of the scan", "recurrence", "time", "memory", "MiB", "MiB of the scan", "apart"
    )
    rows = {name: measured(subject, options.repeats) for name, subject in subjects(options).items()}
    for name, row in rows.items():
        sizes = (f"{row[key] / 2**20:.1f}" for key in ("memory_bytes", "scan_memory_bytes"))
        table.add_row(name, f"{row['time']:.2f}", f"{row['memory']:.2f}", *sizes, f"{row['apart']:.0e}")
    study.publish(options.out, options, table, rows=rows)
    return rows


if __name__ == "__main__":
    study.main(run, Options)
