"""Wrong gradients, and what must be said of them: for the tests of the diagnosis."""

import re

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors import Specimen

BATCH = 5
SHAPES = ((7,), (3, 4), (6, 6), (2, 3, 4), (BATCH, 3), (BATCH, 4, 4), (33,), (40, 25))


def specimen(rng, shape=(3, 4), draws=3, dtype=np.float64, batched=None, terms=("b",), **changes):
    """A leaf whose gradient is linear in the cotangents, as every gradient is: Σ over examples of A ∘ dY."""
    batched = (len(shape) > 0 and shape[0] == BATCH) if batched is None else batched
    wide = np.complex128 if np.issubdtype(dtype, np.complexfloating) else np.float64

    def normal(*size):
        return rng.standard_normal(size) + (1j * rng.standard_normal(size) if wide == np.complex128 else 0)

    A = normal(*shape) if batched else normal(BATCH, *shape)
    dYs = [[normal(*A.shape).astype(dtype)] for _ in range(draws)]

    def one(dYs):
        product = A * dYs[0].astype(wide)
        return product if batched else product.sum(0)

    truth = [one(draw) for draw in dYs]
    largest = max(np.abs(t).max(initial=0) for t in truth)
    unit = float(jnp.finfo(dtype).eps)
    return Specimen(
        name="W",
        hand=[t.astype(dtype) for t in truth],
        truth=truth,
        tolerance=4 * unit * largest,
        value=normal(*shape).astype(dtype),
        dYs=dYs,
        sizes={"batch": BATCH, "n_out": 11},
        others={name: [normal(*shape) for _ in range(draws)] for name in terms},
        one=one,
        dtype=np.dtype(dtype),
    )._replace(**changes)


def by_hand(s, change):
    """The specimen with its gradient by hand changed: G -> change(G), all draws in one array."""
    hand = change(np.stack(s.hand))
    return s._replace(hand=list(hand))


def noise(rng, s, size=1e-16):
    """Rounding, as two ways to the same gradient leave it."""
    return by_hand(s, lambda H: H + size * np.abs(H).max() * rng.standard_normal(H.shape))


def set_at(H, index, change):
    H = H.copy()
    H[(slice(None), *index)] = change(H[(slice(None), *index)])
    return H


def some_index(rng, shape):
    return tuple(int(rng.integers(n)) for n in shape)


# Kind -> (rng, specimen) -> the broken specimen and what must be said of it; None where the kind doesn't apply.
def _factor(c, words):
    return lambda rng, s: (by_hand(s, lambda H: c * H), words)


def _one_element(rng, s):
    i = some_index(rng, s.value.shape)
    return by_hand(s, lambda H: set_at(H, i, lambda h: 0 * h)), f"right but for element {_place(i)}: zero there"


def _place(index):
    return str(index[0]) if len(index) == 1 else str(index)


def _one_column(rng, s):
    if s.value.ndim != 2:
        return None
    j = int(rng.integers(s.value.shape[1]))
    return by_hand(s, lambda H: set_at(H, (..., j), lambda h: 3 * h)), f"right but for column {j}: 3 × too large there"


def _one_example(rng, s):
    if s.value.shape[0] != BATCH:
        return None
    i = int(rng.integers(BATCH))
    wrong = by_hand(s, lambda H: set_at(H, (i,), lambda h: rng.standard_normal(h.shape)))
    return wrong, f"right but for example {i}"


def _transposed(rng, s):
    shape = s.value.shape
    return (by_hand(s, lambda H: np.swapaxes(H, -1, -2)), "transposed") if shape[-2:] in ((6, 6), (4, 4)) else None


def _permuted(rng, s):
    if s.value.shape[0] != BATCH:
        return None
    order = rng.permutation(BATCH)
    while (order == np.arange(BATCH)).any():
        order = rng.permutation(BATCH)
    return by_hand(s, lambda H: H[:, order]), re.compile("examples permuted")


def _reversed(rng, s):
    axis = s.value.ndim - 1
    if axis == 0 and s.value.shape[0] == BATCH:
        return None
    return by_hand(s, lambda H: np.flip(H, -1)), f"axis {axis} reversed"


def _rolled(rng, s):
    axis = s.value.ndim - 1
    return by_hand(s, lambda H: np.roll(H, 1, -1)), f"axis {axis} rolled by 1"


def _negative_x(rng, s):
    if s.value.size < 6 or not 2 < np.count_nonzero(s.value < 0) < s.value.size - 2:
        return None
    return by_hand(s, lambda H: np.where(s.value < 0, 0, H)), re.compile("right but for .* x < 0: zero there")


def _large_x(rng, s):
    if s.value.size < 12:
        return None
    return (
        by_hand(s, lambda H: np.where(np.abs(s.value) > 1, 2 * H, H)),
        re.compile(r"right but for elements where \|x\| > 1: 2 × too large \(.*\) there|right .* 2 × too large there"),
    )


def _diagonal(rng, s):
    if s.value.shape[-2:] not in ((6, 6), (4, 4)):
        return None
    return by_hand(s, lambda H: H * np.eye(H.shape[-1])), "right on the diagonal only: zero elsewhere"


def _ignores(rng, s):
    ones = s.one([np.ones_like(s.dYs[0][0])])
    return s._replace(hand=[ones] * len(s.hand)), "ignores the cotangent: right for dY = 1"


def _only_example_0(rng, s):
    if s.value.shape[0] == BATCH:
        return None
    masked = [[dY * (np.arange(BATCH) == 0).reshape(-1, *[1] * s.value.ndim) for dY in draw] for draw in s.dYs]
    return s._replace(hand=[s.one(draw) for draw in masked]), "only example 0: misses the sum over the batch"


def _missing_sum(rng, s):
    if s.value.shape[0] == BATCH:
        return None
    parts = rng.standard_normal((len(s.truth), BATCH - 1, *s.value.shape))
    hand = [np.concatenate([part, (t - part.sum(0))[None]]) for part, t in zip(parts, s.truth, strict=True)]
    shape = s.value.shape
    return s._replace(hand=hand), f"misses the sum over axis 0 (broadcast): shape {(BATCH, *shape)} instead of {shape}"


def _nan(rng, s):
    i = some_index(rng, s.value.shape)
    wrong = by_hand(s, lambda H: set_at(H, i, lambda h: h * np.nan))
    return wrong, f"NaN in 1 of {s.value.size} elements (element {_place(i)})"


def _clipped(rng, s):
    bound = float(f"{np.median(np.abs(s.truth)):.3g}")
    return by_hand(s, lambda H: np.clip(H, -bound, bound)), f"clipped to ±{bound:.3g}"


def _scaled_and_transposed(rng, s):
    broken = _transposed(rng, s)
    return broken and (by_hand(broken[0], lambda H: 2 * H), "2 × too large and transposed")


def _scaled_but_for_a_row(rng, s):
    if s.value.ndim != 2:
        return None
    wrong = by_hand(s, lambda H: set_at(1.7 * H, (0,), lambda h: 0 * h))
    row = "example" if s.value.shape[0] == BATCH else "row"
    return wrong, f"1.7 × too large and otherwise right but for {row} 0: zero there"


def _tiny(rng, s):
    return by_hand(s, lambda H: H * (1 + 1e-9)), "1.000000001 × too large"


def _tiny_element(rng, s):
    i = some_index(rng, s.value.shape)
    off = 1e-9 * np.abs(s.truth).max()
    return (
        by_hand(s, lambda H: set_at(H, i, lambda h: h + off)),
        f"right but for element {_place(i)}: off by 1e-09 of the leaf's largest there",
    )


def _tiny_transposed(rng, s):
    broken = _transposed(rng, s)
    return broken and (
        by_hand(s, lambda H: H + 1e-9 * (np.stack(broken[0].hand) - H)),
        "transposed, mixed in with weight 1e-09",
    )


def _exchanged(rng, s):
    one, two = sorted(rng.choice(s.value.size, 2, replace=False))
    if s.value.size < 12:
        return None

    def change(H):
        H = H.copy()
        flat = H.reshape(len(H), -1)
        flat[:, [one, two]] = flat[:, [two, one]]
        return H

    places = [_place(tuple(int(i) for i in np.unravel_index(k, s.value.shape))) for k in (one, two)]
    return by_hand(s, change), f"elements {places[0]} and {places[1]} exchanged"


def _decay(rng, s):
    return by_hand(s, lambda H: H + 0.01 * s.value), "0.01 × the argument added (weight decay?)"


def _argument(rng, s):
    return by_hand(s, lambda H: H * s.value), "multiplied by the argument"


def _other_argument(rng, s):
    C = rng.uniform(0.5, 2, s.value.shape)
    what = "element"
    return by_hand(s, lambda H: H * C), re.compile(f"each {what} multiplied by a different factor, ")


def _normalized(rng, s):
    def change(H):
        return H / np.linalg.norm(H.reshape(len(H), -1), axis=1).reshape(-1, *[1] * s.value.ndim)

    return by_hand(s, change), "scaled to norm 1"


KINDS = {
    "2": _factor(2, "2 × too large"),
    "half": _factor(0.5, "half of what it should be"),
    "1.5": _factor(1.5, "1.5 × too large"),
    "0.37": _factor(0.37, "0.37 of what it should be"),
    "batch": _factor(BATCH, "sum instead of mean: factor 5 = batch"),
    "1/batch": _factor(1 / BATCH, "mean instead of sum: factor 1/5 = 1/batch"),
    "sign": _factor(-1, "sign flipped"),
    "-2": _factor(-2, "2 × too large and sign flipped"),
    "zero": _factor(0, "zero"),
    "offset": lambda rng, s: (by_hand(s, lambda H: H + 0.5), "off by a constant: 0.5"),
    "absolute value": lambda rng, s: (by_hand(s, np.abs), "absolute value"),
    "negatives dropped": lambda rng, s: (by_hand(s, lambda H: np.maximum(H, 0)), "negative elements set to zero"),
    "squared": lambda rng, s: (by_hand(s, np.square), "squared"),
    "other leaf": lambda rng, s: (s._replace(hand=s.others["b"]), "the gradient of b"),
    "None": lambda rng, s: (s._replace(hand=[None] * len(s.hand)), "None instead of an array"),
    "float32": lambda rng, s: (
        by_hand(s, lambda H: H.astype(np.float32).astype(np.float64)),
        "computed in float32 instead of float64",
    ),
    "dtype": lambda rng, s: (by_hand(s, lambda H: H.astype(np.float32)), "dtype float32 instead of float64"),
    "bfloat16": lambda rng, s: (
        by_hand(s, lambda H: H.astype(jnp.bfloat16).astype(np.float64)),
        "computed in bfloat16 instead of float64",
    ),
    "element": _one_element,
    "column": _one_column,
    "example": _one_example,
    "transposed": _transposed,
    "permuted": _permuted,
    "reversed": _reversed,
    "rolled": _rolled,
    "x < 0": _negative_x,
    "|x| > 1": _large_x,
    "diagonal": _diagonal,
    "ignores": _ignores,
    "only example 0": _only_example_0,
    "missing sum": _missing_sum,
    "NaN": _nan,
    "clipped": _clipped,
    "2 and transposed": _scaled_and_transposed,
    "1.7 but for a row": _scaled_but_for_a_row,
    "1e-9": _tiny,
    "1e-9 element": _tiny_element,
    "1e-9 transposed": _tiny_transposed,
    "exchanged": _exchanged,
    "weight decay": _decay,
    "times its argument": _argument,
    "own factors": _other_argument,
    "normalized": _normalized,
}
