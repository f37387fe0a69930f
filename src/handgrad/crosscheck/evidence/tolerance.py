"""How far apart two right gradients may be: every constant and every bound. Derivation: docs/crosscheck.md.

    T = 3 max(e_autodiff, e_noise, e_own) + γ̃_k max |Jᵀ| |dY|

Everything here is a function of numbers; what the numbers are is measured in evidence.py and noise.py.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

LAMBDA = 4.0  # Higham and Mary (2019): √k roundings' worth of error, times λ, but for a probability of 2 e^(−λ²/2)
RATIO = 3.0  # how much more than autodiff a hand-written pass may err
VANISHING = 4.0  # roundings of terms of natural size: a smaller gradient is what they leave
CLOSE, CLOSEST = 1024.0, 1.0  # roundings, and a share: only a smaller error can be the function's own rounding
NEARLY = 16.0  # tolerances
BLIND = 0.5  # a run that doesn't detect half of the gradient missing has shown nothing
SURE = 1e-5  # differences contradict autodiff only by more than this share of the leaf's largest gradient
DOUBT = 10.0  # ... and by more than so many of their own error estimates
MISSED = 1e-8  # a share of the largest gradient that the error estimate of differences may miss
APART = 8.0  # roundings that two calls on the same numbers may differ by
SPREAD = 6.0  # standard deviations that a sum of independent errors stays within

NEIGHBORS = 8  # inputs one unit in the last place away
NEARBY = 24  # pairs of inputs nearby
NEAR = 2**-6  # how far "nearby" is, as a share of each number


def unit_roundoff(dtype: DTypeLike) -> float:
    """u: the largest relative error of one rounding to a dtype's precision."""
    return float(jnp.finfo(dtype).eps) / 2


def coarser(*dtypes: DTypeLike | None) -> DTypeLike:
    """The least precise of these; None among them is ignored."""
    return max((dtype for dtype in dtypes if dtype is not None), key=unit_roundoff)


def floor(dtype: DTypeLike, roundings: int) -> float:
    """γ̃_k = λ √k u: the relative error that k roundings of a dtype make, with all but certainty."""
    return LAMBDA * math.sqrt(max(roundings, 1)) * unit_roundoff(dtype)


def of_leaf(error: float, least: float) -> float:
    """T of a leaf: `error` is the largest that was measured of a right program, `least` is γ̃_k on absolute values."""
    return RATIO * error + least


def of_output(error: float, unit: float, relative: float, largest: float) -> float:
    """The forward pass's: another function is meant, not another library's hundred units in the last place."""
    return RATIO * error + max(relative, min(CLOSE * unit, CLOSEST / 16)) * largest


def vanishing(unit: float, natural: float) -> float:
    """What rounding leaves of terms of natural size that cancel."""
    return VANISHING * unit * natural


def close_call(unit: float, size: float, T: float) -> float:
    """The largest error that may be the function's own rounding, and is worth a second look: of terms of that size, or
    where rounding is amplified, by about as much as in autodiff."""
    return max(min(CLOSE * unit, CLOSEST) * size, NEARLY * T)


def close_output(largest: float, T: float) -> float:
    """The same for an output. A formula with terms far larger than their sum, exp(r) − r − 1 where r is small, errs by
    roundings of those."""
    return max(SURE * largest, NEARLY * T)


def of_differences(error: np.ndarray, largest: float, natural: float) -> np.ndarray:
    """How far autodiff may be from differences of that error estimate before they contradict it."""
    return DOUBT * error + SURE * largest + vanishing(2**-52, natural)


def of_kink(error: float, least: float, low: float | np.ndarray, high: float | np.ndarray) -> float | np.ndarray:
    """How far outside the two slopes a subgradient may round. Not T: of a neighbor on another side of the kink nothing
    may count as noise."""
    return RATIO * error + least + 1e-6 * (abs(low) + abs(high))


# The contracts compare the gradient by hand with itself, so that each side may err by T.


def of_linearity(T: float, unit: float, largest: float, least: float) -> float:
    """⟨two parts of dY⟩ against the whole: three gradients, and the additions."""
    return 3 * T + 4 * unit * largest + least


def of_transform(T: float) -> float:
    """Two ways to run the same function."""
    return 2 * T


def of_cut(T: float, scale: float, largest: float) -> float:
    """A batch of one: T as a share, of the larger of the two gradients."""
    return 4 * T * (max(largest / scale, 1.0) if scale else 1.0)


def of_adjoint(T: float, least: float, scale: float, largest_v: float, size: int) -> float:
    """One leaf's share of |⟨dY, J v⟩ − ⟨Jᵀ dY, v⟩|: independent errors in `size` terms."""
    return SPREAD * ((T + least) * largest_v * math.sqrt(size) + 1e-13 * scale * size * largest_v)


def of_second_order(error: float, dtype: DTypeLike, roundings: int, largest: float) -> float:
    """A gradient of a gradient: twice the roundings."""
    return RATIO * error + floor(dtype, 2 * roundings) * largest
