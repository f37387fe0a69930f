"""The settings of a check, refused by name where they make no sense."""

import difflib
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Transform = Literal["jit", "vmap", "scan", "checkpoint", "shard", "second_order"]
TRANSFORMS: tuple[str, ...] = get_args(Transform)
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


class SettingsOptions(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments of every check."""

    seed: int
    draws: int
    dtype: DTypeLike | None
    differences: bool
    contracts: bool
    transforms: tuple[Transform, ...]
    control: bool | None
    repair: bool | None
    repair_seconds: float
    rtol: float | None
    atol: float
    nondeterminism_tolerance: float | None
    search: bool


@dataclass(frozen=True)
class Settings:
    """How a check runs.

    Attributes:
      seed: seed of the cotangents and of everything else that is random.
      draws: number of random cotangents; a small output's whole Jacobian is compared in addition.
      dtype: dtype that floating-point arguments are cast to first; None keeps theirs.
      differences: whether finite differences verify autodiff of the reference. False trusts it, which straight-through
        estimators need.
      contracts: whether to check the properties that need no reference, such as linearity in the cotangent.
      transforms: which of "jit", "vmap", "scan", "checkpoint", "shard" and "second_order" to check.
      control: whether to run the negative control: break the gradient on purpose and count how many of the errors are
        detected. None runs it where it is cheap.
      repair: whether to search for the smallest change of the source that makes a wrong gradient right. None searches
        where it is cheap.
      repair_seconds: processor time that the search for a repair may take.
      rtol: tolerance as a share of each leaf's largest gradient; None derives it from rounding.
      atol: absolute tolerance. A leaf that is within the tolerance only because of `atol` is INCONCLUSIVE.
      nondeterminism_tolerance: largest difference between two calls on the same inputs that is a note and no failure,
        as a share of each leaf's largest gradient; 0 requires the same bits. None allows 4 times the machine epsilon of
        the leaf's dtype: sums that parallel threads add up in another order.
      search: whether to search for inputs that make the gradient fail.
    Raises:
      ValueError: a field has an invalid type or value; the message names it.
    """

    seed: int = 0
    draws: int = 3
    dtype: DTypeLike | None = None
    differences: bool = True
    contracts: bool = True
    transforms: tuple[Transform, ...] = ("jit",)
    control: bool | None = None
    repair: bool | None = None
    repair_seconds: float = 15.0
    rtol: float | None = None
    atol: float = 0.0
    nondeterminism_tolerance: float | None = None
    search: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            wanted, accepts = _ACCEPTED[field.name]
            value = getattr(self, field.name)
            if not accepts(value):
                raise ValueError(f"{field.name} must be {wanted}, got {textwrap.shorten(repr(value), 60)}")

    def written(self) -> list[str]:
        """As Python that reproduces a check: the seed, and what isn't as by default; not how its inputs came about."""
        given = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        kept = ("seed", *(name for name, (value, default) in given.items() if name != "seed" and value != default))
        return [f"{name}={given[name][0]!r}" for name in kept if name not in ("dtype", "search")]


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings of a check's keyword arguments.

    Raises:
      TypeError: one of them isn't any.
      ValueError: one has an invalid value.
    """
    known = [field.name for field in fields(Settings)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise TypeError(f"{name} is no setting. {hint}The settings are {', '.join(known)}")
    return Settings(**given)


def _is_whole(value: object, least: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return least <= int(value) < 2**63  # the seeds that jax.random.key takes


def _is_flag(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_tolerance(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value) and float(value) >= 0


def _is_dtype(value: Any) -> bool:
    try:
        return jnp.dtype(value).name in DTYPES
    except TypeError:
        return False


def _is_transforms(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(one, str) and one in TRANSFORMS for one in value)


# {field: (what it must be, whether a value is that)}
_FLAG = ("True or False", _is_flag)
_FLAG_OR_NONE = ("True, False or None", lambda value: value is None or _is_flag(value))
_TOLERANCE_OR_NONE = ("a finite number of at least 0, or None", lambda value: value is None or _is_tolerance(value))
_ACCEPTED = {
    "seed": ("a whole number of at least 0 and below 2**63", lambda value: _is_whole(value, 0)),
    "draws": ("a whole number of at least 1", lambda value: _is_whole(value, 1)),
    "dtype": (f"one of {', '.join(DTYPES)}, or None", lambda value: value is None or _is_dtype(value)),
    "differences": _FLAG,
    "contracts": _FLAG,
    "transforms": (f"a tuple of some of {', '.join(TRANSFORMS)}", _is_transforms),
    "control": _FLAG_OR_NONE,
    "repair": _FLAG_OR_NONE,
    "repair_seconds": ("a finite number of at least 0", _is_tolerance),
    "rtol": _TOLERANCE_OR_NONE,
    "atol": ("a finite number of at least 0", _is_tolerance),
    "nondeterminism_tolerance": _TOLERANCE_OR_NONE,
    "search": _FLAG,
}
