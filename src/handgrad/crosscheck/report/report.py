"""What a check says: a verdict, a row for each leaf, and how sure it is."""

import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
Status = Literal["PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"]

SCHEMA = "handgrad.crosscheck/1"
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # numbers that JSON has no digits for, under JavaScript's names


class CheckFailed(AssertionError):  # noqa: N818 (it says what happened)
    """A check that should have passed didn't; the message is the whole report."""


@dataclass(frozen=True)
class Row:
    """One leaf: its gradient by hand beside the others, at the element where it is furthest off.

    Attributes:
      leaf: the argument's path, as "params.0.W".
      status: PASS, FAIL or INCONCLUSIVE.
      shape, dtype: the leaf's.
      rho: error by hand / error by autodiff, both against float64; NaN where there is none.
      error: largest |by hand − float64| over all cotangents, as a share of the leaf's largest gradient; NaN if not
        finite.
      tolerance: the largest error that rounding explains, the same share: above it the leaf fails.
      power: the smallest relative error that this run would have seen in the leaf; infinite where it saw nothing.
      index: of the worst element in the leaf.
      by_hand, by_autodiff, by_float64, by_differences: the values there, as text, so that complex ones and the ones
        that don't exist ("-") fit too.
      bad: the share of elements outside the tolerance.
      diagnosis: what the wrong gradient is, as "2 × too large"; "" where it is right or nothing fits.
      reason: why it is inconclusive, or what excused it; "" otherwise.
      heat: |error| / tolerance over the leaf as a matrix, its last axis across and all others as one down, at most
        64 × 64 cells of the largest in each; rows of cells, () where the leaf passes.
      draw: the number of the cotangent that shows the error at its largest.
    """

    leaf: str
    status: Status
    shape: tuple[int, ...]
    dtype: str
    rho: float
    error: float
    tolerance: float
    power: float
    index: tuple[int, ...]
    by_hand: str
    by_autodiff: str
    by_float64: str
    by_differences: str
    bad: float
    diagnosis: str = ""
    reason: str = ""
    heat: tuple[tuple[float, ...], ...] = ()
    draw: int = 0


@dataclass(frozen=True)
class Contract:
    """One promise that was looked at: "linear in the cotangent", "vmap equals a loop"; `detail` says what came out."""

    name: str
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Control:
    """The negative control: the gradient under test, broken on purpose.

    Attributes:
      killed: {kind: number of mutants that the check failed}.
      survived: descriptions of those that it passed.
      equivalent: mutants that turned out to compute the same numbers, which no check can tell.
    """

    killed: dict[str, int] = field(default_factory=dict)
    survived: tuple[str, ...] = ()
    equivalent: int = 0


@dataclass(frozen=True)
class Repair:
    """A change of one line that makes the gradient right.

    Attributes:
      file, line: where, as Python's tracebacks have it; the line counts from 1.
      source: the line as it stands, without its indentation; "" where the file can't be read.
      change: what it should do instead, as "a sum instead of the mean" or "W transposed".
    """

    file: str
    line: int
    source: str
    change: str


@dataclass(frozen=True, repr=False)
class Report:
    """What a check says.

    Attributes:
      name: what was checked.
      verdict: PASS; FAIL, a wrong gradient; INCONCLUSIVE, this run could not tell; INVALID, not a gradient at all.
      reason: one sentence: why the verdict is what it is; "" for a plain PASS.
      culprit: "" or who is to blame: "hand", "autodiff", "forward", "conditioning", "kink", "nondeterminism", "input".
      rows: one for each differentiable leaf (or for each network), worst first.
      contracts: the promises that need no oracle, and the transforms.
      kinks: sentences: where the input stands on a kink, and which slope is taken.
      control: the negative control, or None.
      notes: sentences worth knowing.
      settings: what the check ran with: seed, dtype, draws, tolerances, reference, device, versions.
      reproduce: one line of Python that makes the failure again; "".
      repair: the smallest change found that makes the gradient right, one entry for each line that it touches; empty
        where nothing is wrong, or none is known.
    """

    name: str
    verdict: Verdict
    reason: str = ""
    culprit: str = ""
    rows: tuple[Row, ...] = ()
    contracts: tuple[Contract, ...] = ()
    kinks: tuple[str, ...] = ()
    control: Control | None = None
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    reproduce: str = ""
    repair: tuple[Repair, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the verdict is PASS."""
        return self.verdict == "PASS"

    def raise_if_failed(self) -> None:
        """Nothing where the verdict is PASS.

        Raises:
          CheckFailed: any other verdict, INCONCLUSIVE included: a check that decides nothing must not pass in silence.
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        if not self.ok:
            raise CheckFailed(str(self))

    def __str__(self) -> str:
        from handgrad.crosscheck.report.text import render

        return render(self)

    __repr__ = __str__  # pytest prints the repr of what a failing assertion names

    def to_json(self) -> str:
        """The whole report as JSON (RFC 8259: NaN and infinities are strings), under a versioned schema.

        A setting that JSON has no type for, a device or a dtype, is written as its text.
        """
        return json.dumps({"schema": SCHEMA, **_plain(self)}, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote.

        Sequences in the settings come back as tuples, and "NaN", "Infinity" and "-Infinity" there as numbers.

        Raises:
          ValueError: not JSON, of another schema, or with a field that is missing, unknown or of another type.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ValueError(f"Report.from_json: text must be JSON, got {text[:40]!r} ({error})") from None
        schema = found.pop("schema", None) if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"Report.from_json: the schema must be {SCHEMA!r}, got {schema!r}")
        return _read(cls, found, "report")

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page, and return its path.

        Raises:
          OSError: the file can't be written; the message names it.
          ModuleNotFoundError: without the `report` extra.
        """
        from handgrad.crosscheck.report.html import write

        return write(self, Path(path))


def _plain(value: Any) -> Any:
    """A dataclass, or what stands in one, in JSON's own types."""
    # Not dataclasses.asdict: it copies what it finds, and a device among the settings can't be copied.
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` out of JSON as the annotation `kind` has it; `where` is its name in the error."""
    origin, inside = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if wrong := sorted(hints.keys() ^ value.keys()):
            problem = "is missing" if wrong[0] in hints else "is unknown"
            raise ValueError(f"Report.from_json: the field {where}.{wrong[0]} {problem}")
        return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
    if origin is UnionType:  # Control | None is the only one
        return None if value is None else _read(inside[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inside[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(inside[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any:
        return _setting(value)
    if kind is float and (value in NOT_FINITE if isinstance(value, str) else type(value) in (int, float)):
        return float(value) if isinstance(value, str) else value
    if type(value) is kind or (origin is Literal and value in inside):
        return value
    wanted = f"one of {', '.join(inside)}" if origin is Literal else getattr(kind, "__name__", str(kind))
    raise ValueError(f"Report.from_json: {where} must be {wanted}, got {value!r}")


def _setting(value: Any) -> Any:
    """A setting out of JSON; nothing says its type."""
    if isinstance(value, dict):
        return {key: _setting(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_setting(item) for item in value)
    return float(value) if value in NOT_FINITE else value
