"""Wrong gradients, and what must be said of them: for the tests of the diagnosis."""

import re

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors import Specimen
from handgrad.crosscheck.errors.gradient import Gradient, argument

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


def made(error, s):
    """(the specimen with its gradient as this error makes it, in which words) for everything that it makes."""
    others = {name: np.stack(truth) for name, truth in s.others.items()}
    x = argument(s.value, s.value.shape)
    for words, M in error.make(Gradient(s.name, np.stack(s.truth), s.dtype, x, s.sizes, others, s.dYs, s.one)):
        yield s._replace(hand=list(M if error.kind == "dtype" else M.astype(s.dtype))), words


WHERE = re.compile(r"(?:, wrong where|, where| and) \|?x\|? [<>=]+ [^:]*")  # the same elements in further words


def holds(said, expected):
    said = (
        WHERE.sub("", said)
        if said.startswith(("right ", "wrong ")) and isinstance(expected, str) and "where" not in expected
        else said
    )
    return said == expected if isinstance(expected, str) else expected.match(said) is not None


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


# Beside what the catalogue makes: kind -> (rng, specimen) -> the broken specimen and what must be said of it, or None
# where the kind doesn't apply.
def _factor(c, words):
    return lambda rng, s: (by_hand(s, lambda H: c * H), words)


def _place(index):
    return str(index[0]) if len(index) == 1 else str(index)


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


def _decay(rng, s):
    return by_hand(s, lambda H: H + 0.01 * s.value), "0.01 × the argument added (weight decay?)"


def _other_argument(rng, s):
    C = rng.uniform(0.5, 2, s.value.shape)
    what = "element"
    return by_hand(s, lambda H: H * C), re.compile(f"each {what} multiplied by a different factor, ")


KINDS = {
    "1.5": _factor(1.5, "1.5 × too large"),
    "0.37": _factor(0.37, "0.37 of what it should be"),
    "-2": _factor(-2, "2 × too large and sign flipped"),
    "offset": lambda rng, s: (by_hand(s, lambda H: H + 0.5), "off by a constant: 0.5"),
    "other leaf": lambda rng, s: (s._replace(hand=s.others["b"]), "the gradient of b"),
    "None": lambda rng, s: (s._replace(hand=[None] * len(s.hand)), "None instead of an array"),
    "bfloat16": lambda rng, s: (
        by_hand(s, lambda H: H.astype(jnp.bfloat16).astype(np.float64)),
        "computed in bfloat16 instead of float64",
    ),
    "example": _one_example,
    "transposed": _transposed,
    "permuted": _permuted,
    "ignores": _ignores,
    "only example 0": _only_example_0,
    "missing sum": _missing_sum,
    "2 and transposed": _scaled_and_transposed,
    "1.7 but for a row": _scaled_but_for_a_row,
    "1e-9": _tiny,
    "1e-9 element": _tiny_element,
    "1e-9 transposed": _tiny_transposed,
    "weight decay": _decay,
    "own factors": _other_argument,
}
