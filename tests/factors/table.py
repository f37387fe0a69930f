"""The table of factors: how to draw each, and a scalar whose gradient it is, for autodiff as the oracle."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad import factors
from handgrad.factors import Contraction, Correlation, Hadamard, Outer, PerExample, Scatter, Shared, Stacked, Total
from handgrad.factors.windows import Window

# LLVM's optimizations would take more than half of the time to compile.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

BATCH = 4
LAYERS, OUTER_LAYERS = 3, 2
WEIGHTS = np.array([0.5, -2.0, 0.0, 3.0])
S = np.random.default_rng(0).standard_normal((5, 2))


@dataclass(frozen=True, eq=False)
class Row:
    """One factor of the table.

    Attributes:
      shape: the parameter's.
      draw: (random generator, batch) -> sides, NumPy float64 or integers.
      make: (*sides) -> factor.
      primal: (parameter, *sides of one example) -> the scalar whose gradient is g_b.
      batch_axis: the axis of the examples in each side.
    """

    shape: tuple[int, ...]
    draw: Callable[..., tuple[Any, ...]]
    make: Callable[..., Any]
    primal: Callable[..., Any]
    batch_axis: int = 0

    def sides(self, seed: int, dtype: Any = np.float64, batch: int = BATCH) -> tuple[Any, ...]:
        drawn = self.draw(np.random.default_rng(seed), batch)
        return tuple(side.astype(dtype) if side.dtype == float else side for side in drawn)

    def gradients(self, *draws: tuple[Any, ...]) -> jax.Array:
        """The oracle: (draws, batch, *shape) in float64, from jax.grad of the primal, one example at a time."""
        sides = [
            jnp.concatenate([jnp.moveaxis(s, self.batch_axis, 0) for s in sides]) for sides in zip(*draws, strict=True)
        ]
        sides = [s.astype(float) if jnp.issubdtype(s.dtype, jnp.floating) else s for s in sides]
        each = jax.lax.map(lambda sides: jax.grad(self.primal)(jnp.zeros(self.shape), *sides), tuple(sides))
        return each.reshape(len(draws), -1, *self.shape)


def normal(*shapes: tuple[int, ...], layers: tuple[int, ...] = ()) -> Callable[..., Any]:
    return lambda rng, batch: tuple(rng.standard_normal((*layers, batch, *shape)) for shape in shapes)


def product(W, a, d):
    return jnp.vdot(a @ W, d)


def added(b, d):
    return jnp.vdot(jnp.zeros_like(d) + jnp.broadcast_to(b, d.shape), d)


def scaled(s, a, d):
    return jnp.vdot(a * jnp.broadcast_to(s, a.shape), d)


def stacked_product(W, a, d):
    return sum(product(W[layer], a[layer], d[layer]) for layer in range(LAYERS))


def outer(n_in: int, n_out: int, *middle: int) -> Row:
    return Row((n_in, n_out), normal((*middle, n_in), (*middle, n_out)), Outer, product)


def stack_of_outers(A, D):
    return Stacked(Outer(A, D))


def two_outers(A, D, B, E):
    return Shared((Outer(A, D), Outer(B, E)))


def recompute(rows, shared, weights, options):
    """S ∘ Σ_b w_b A_bᵀ Δ_b, times the options' number."""
    return options[0] * shared * Outer(*rows).accumulate(weights)


def recomputed(A, Delta, dtype=np.dtype(float)):
    return factors.Recomputed(2 * S * Outer(A, Delta).sum(), (A, Delta), S, recompute, (2.0,), dtype)


def two_stacked_products(W, a, d, b, e):
    return stacked_product(W, a, d) + stacked_product(W, b, e)


ROWS = {
    # Gram products are cheaper as long as T (n_in + n_out) <= 2 n_in n_out.
    "outer": outer(5, 3),
    "outer-gram": outer(6, 5, 3),
    "outer-direct": outer(2, 3, 7),
    "outer-one-token": outer(4, 3, 1),
    "outer-image": outer(2, 1, 3, 2),
    "total": Row((3,), normal((3,)), Total, added),
    "total-tokens": Row((3,), normal((2, 4, 3)), Total, added),
    "hadamard": Row((3,), normal((3,), (3,)), Hadamard, scaled),
    "hadamard-tokens": Row((3,), normal((4, 2, 3), (4, 2, 3)), Hadamard, scaled),
    "per_example": Row((2, 3), normal((2, 3)), PerExample, jnp.vdot),
    "per_example-scalar": Row((), normal(()), PerExample, jnp.vdot),
    "stacked-outer": Row((LAYERS, 5, 2), normal((5,), (2,), layers=(LAYERS,)), stack_of_outers, stacked_product, 1),
    "stacked-direct": Row(
        (LAYERS, 3, 2), normal((6, 3), (6, 2), layers=(LAYERS,)), stack_of_outers, stacked_product, 1
    ),
    "stacked-stacked": Row(
        (OUTER_LAYERS, LAYERS, 4, 2),
        normal((5, 4), (5, 2), layers=(OUTER_LAYERS, LAYERS)),
        lambda A, D: Stacked(stack_of_outers(A, D)),
        lambda W, a, d: sum(stacked_product(W[i], a[i], d[i]) for i in range(OUTER_LAYERS)),
        2,
    ),
    "recomputed": Row(S.shape, normal((3, 5), (3, 2)), recomputed, lambda W, a, d: product(2 * S * W, a, d)),
    "shared-outers": Row(
        (4, 3),
        normal((4,), (3,), (5, 4), (5, 3)),
        two_outers,
        lambda W, a, d, b, e: product(W, a, d) + product(W, b, e),
    ),
    "shared-outer-per_example": Row(
        (4, 3),
        normal((2, 4), (2, 3), (4, 3)),
        lambda A, D, g: Shared((Outer(A, D), PerExample(g))),
        lambda W, a, d, g: product(W, a, d) + jnp.vdot(W, g),
    ),
    "shared-hadamard-total": Row(
        (3,),
        normal((3,), (3,), (3,)),
        lambda A, D, E: Shared((Hadamard(A, D), Total(E))),
        lambda s, a, d, e: scaled(s, a, d) + added(s, e),
    ),
    "shared-stackeds": Row(
        (LAYERS, 4, 3),
        normal((4,), (3,), (4,), (3,), layers=(LAYERS,)),
        lambda A, D, B, E: Shared((stack_of_outers(A, D), stack_of_outers(B, E))),
        two_stacked_products,
        1,
    ),
    "stacked-shared": Row(
        (LAYERS, 4, 3),
        normal((4,), (3,), (4,), (3,), layers=(LAYERS,)),
        lambda *sides: Stacked(two_outers(*sides)),
        two_stacked_products,
        1,
    ),
}

# Subscripts of the factor, and Y = einsum(A, parameter) whose cotangent Delta is.
SIZES = {"t": 3, "s": 2, "i": 2, "o": 3, "h": 2, "r": 4}
EINSUMS = {
    "tokens": ("bti,bto->io", "bti,io->bto"),
    "heads": ("bthi,btho->hio", "bthi,hio->btho"),
    "hadamard": ("bti,bti->i", "bti,i->bti"),
    "inside": ("bir,bo->iro", "bir,iro->bo"),
    "transposed": ("bi,bo->oi", "bi,oi->bo"),
    "diagonal": ("btt,bo->to", "btt,to->bo"),
    "summed": ("bsi,bo->io", "bsi,io->bo"),
    "scalar": ("bt,bt->", "bt,->bt"),
}


def contraction(subscripts: str, primal: str) -> Row:
    sides, w = subscripts.split("->")
    a, d, w = (tuple(SIZES[letter] for letter in term.lstrip("b")) for term in (*sides.split(","), w))
    return Row(
        w,
        normal(a, d),
        lambda A, Delta: Contraction(A, Delta, subscripts),
        lambda W, a, delta: jnp.vdot(jnp.einsum(primal, a[None], W), delta),
    )


ROWS |= {f"contraction-{name}": contraction(*terms) for name, terms in EINSUMS.items()}
ROWS["shared-contraction-outer"] = Row(
    (2, 3),
    normal((3, 2), (3, 3)),
    lambda A, D: Shared((Contraction(A, D, EINSUMS["tokens"][0]), Outer(A, D))),
    lambda W, a, d: 2 * product(W, a, d),
)


def plane(size=(2, 2), strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    return Window(size, strides, padding, dilation, groups)


# Window, space, n_in, n_out; Gram products pay where outputs are few and features many.
WINDOWS = {
    "plain": (plane(), (4, 3), 2, 3),
    "gram": (plane(), (3, 2), 2, 3),
    "gram-elements": (Window((4,), (1,), ((1, 1),), (1,)), (7,), 48, 4),
    "gram-groups": (plane((1, 2), groups=2), (2, 2), 4, 6),
    "strides": (plane((3, 2), strides=(2, 3), padding=((1, 2), (0, 1))), (6, 5), 2, 2),
    "dilation": (plane((2, 3), strides=(2, 1), dilation=(3, 2), padding=((2, 0), (1, 3))), (5, 4), 1, 2),
    "depthwise": (plane((3, 3), groups=3), (4, 5), 3, 6),
    "pointwise": (plane((1, 1), strides=(2, 1), padding=((1, 0), (0, 1))), (4, 2), 2, 3),
    "unused margin": (plane(strides=(4, 3)), (5, 4), 2, 1),
    "line": (Window((3,), (2,), ((2, 1),), (1,), 2), (7,), 18, 2),
    "solid": (Window((2, 1, 2), (1, 2, 1), ((0, 1), (0, 0), (1, 0)), (1, 1, 2), 2), (3, 3, 3), 2, 4),
}


def correlation(window: Window, space: tuple[int, ...], n_in: int, n_out: int) -> Row:
    letters = {1: "W", 2: "HW", 3: "DHW"}[len(space)]

    def primal(K, x, delta):
        y = jax.lax.conv_general_dilated(
            x[None],
            K,
            window.strides,
            window.padding,
            rhs_dilation=window.dilation,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=window.groups,
        )
        return jnp.vdot(y[0], delta)

    return Row(
        (*window.size, n_in // window.groups, n_out),
        normal((*space, n_in), (*window.outputs(space), n_out)),
        lambda X, Delta: Correlation(X, Delta, window),
        primal,
    )


ROWS |= {f"correlation-{name}": correlation(*of) for name, of in WINDOWS.items()}

TABLE_ROWS, N = 6, 3
IDS = {
    "tokens": (4,),
    "one-token": (),
    "image": (2, 2),
    "repeated": [[1, 1, 5], [5, 1, 5], [0, 0, 0], [3, 2, 1]],
    "more-tokens-than-rows": (9,),
    "as-many-tokens-as-rows": (TABLE_ROWS,),
    "outside": [[-1, 2, 6], [100, 2, 2], [-6, -7, 6], [2**31 - 1, -(2**31), 0]],
    "outside-and-many": [[-1, 2, 1, 7, 7, 7], [3, 0, 0, 7, 7, 7], [1, 2, -2, 7, 7, 7], [0, 1, 2, 7, 7, 7]],
}


def scatter(ids: Any, rows: int = TABLE_ROWS) -> Row:
    """Of these ids, or of ids drawn for tokens of this shape."""

    def draw(rng, batch):
        drawn = rng.integers(0, rows, (batch, *ids)) if isinstance(ids, tuple) else np.asarray(ids)[:batch]
        return drawn, rng.standard_normal((*drawn.shape, N))

    def primal(table, ids, delta):
        inside = (ids >= 0) & (ids < rows)
        read = table[jnp.where(inside, ids, 0)]
        return jnp.sum(jnp.where(jnp.expand_dims(inside, -1), read * delta, 0))

    return Row((rows, N), draw, lambda ids, Delta: Scatter(ids, Delta, rows), primal)


def positions(tokens: int) -> Row:
    return Row(
        (TABLE_ROWS, N),
        normal((tokens, N)),
        lambda Delta: Scatter(None, Delta, TABLE_ROWS),
        lambda table, delta: jnp.vdot(table[: len(delta)], delta),
    )


ROWS |= {f"scatter-{name}": scatter(ids) for name, ids in IDS.items()}
ROWS |= {"scatter-one-row": scatter((3,), 1), "positions": positions(4), "all-positions": positions(TABLE_ROWS)}


def relative_error(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-300))


def dots(g: Any, h: Any) -> np.ndarray:
    """⟨g_b, h_b⟩ for each example."""
    return np.einsum("bi,bi->b", g.reshape(len(g), -1), h.reshape(len(h), -1))


def folds(factor: Any, b: Any = 0) -> dict[str, Any]:
    """Every fold of one factor; `b` is an example, which may be traced."""
    return {
        "sum": factor.sum(),
        "weighted sum": factor.sum(jnp.asarray(WEIGHTS)),
        "per_example": factor.per_example(),
        "sq_norms": factor.sq_norms(),
        **{f"norms, {method}": factor.sq_norms(method) for method in factor.norm_methods()},
        "gram": factor.gram(),
        "second_moment": factor.second_moment(),
        "example": factor.examples(b, 1).per_example(),
        "example's norm": factor.examples(b, 1).sq_norms(),
        "example's weighted sum": factor.examples(1, 1).sum(jnp.asarray(WEIGHTS[1:2])),
    }


def check_folds(found: dict[str, Any], g: np.ndarray, dtype: Any, sum_dtype: Any, rtol: float, b: int = 0) -> None:
    """Folds of the gradients g, in their dtypes; sums were rounded once more where their dtype is another."""
    flat = g.reshape(len(g), -1)
    expected = {
        "sum": g.sum(0),
        "weighted sum": np.tensordot(WEIGHTS, g, 1),
        "per_example": g,
        "gram": flat @ flat.T,
        "second_moment": (g**2).sum(0),
        "example": g[b : b + 1],
        "example's norm": dots(g, g)[b : b + 1],
        "example's weighted sum": WEIGHTS[1] * g[1],
    }
    for name, value in found.items():
        is_sum = name.endswith("sum")
        last_rounding = 0 if dtype == sum_dtype or not is_sum else float(jnp.finfo(sum_dtype).eps)
        assert value.dtype == (sum_dtype if is_sum else dtype), name
        assert relative_error(value, expected.get(name, dots(g, g))) <= rtol + last_rounding, name
