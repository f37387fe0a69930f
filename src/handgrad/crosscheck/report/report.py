"""The result of a check: a verdict, a row for each leaf, and how small an error the check would have detected."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from handgrad.crosscheck.report import serialize
from handgrad.crosscheck.report.serialize import Value

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
Status = Literal["PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"]

SCHEMA = "handgrad.crosscheck/1"


class CheckFailed(AssertionError):  # noqa: N818 (it says what happened)
    """A check whose verdict is not PASS; the message is the whole report."""

    __module__ = "handgrad"  # what pytest's summary calls it by


@dataclass(frozen=True)
class Row:
    """One leaf: the hand-written gradient and the others at the element with the largest error.

    Attributes:
      leaf: the argument's path, as "params.0.W".
      status: PASS, FAIL or INCONCLUSIVE.
      shape, dtype: the leaf's.
      rho: error of the hand-written gradient / error of autodiff, both against float64; NaN where undefined.
      error: largest |by hand − float64| over all cotangents, as a share of the leaf's largest gradient; NaN if not
        finite.
      tolerance: largest error that rounding explains, as the same share: the leaf fails above it.
      power: smallest relative error that this run would have detected in the leaf; infinite where none.
      index: of the worst element in the leaf.
      by_hand, by_autodiff, by_float64, by_differences: the values there; None where there is none.
      bad: share of elements outside the tolerance.
      diagnosis: what the wrong gradient is, as "2 × too large"; "" where it is right or no diagnosis fits.
      reason: why the row is inconclusive, or why an error is excused; "" otherwise.
      heat: |error| / tolerance over the leaf as a matrix, its last axis across and all others as one down, at most
        64 × 64 cells of the largest in each; rows of cells, () where the leaf passes.
      draw: number of the cotangent with the largest error.
      came: the shape that the gradient came in, where it isn't the leaf's; None elsewhere.
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
    by_hand: Value
    by_autodiff: Value
    by_float64: Value
    by_differences: Value
    bad: float
    diagnosis: str = ""
    reason: str = ""
    heat: tuple[tuple[float, ...], ...] = ()
    draw: int = 0
    came: tuple[int, ...] | None = None


def number(value: Value) -> str:
    """A value as a report shows it: six digits, "-" for none."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, complex) else f"{value:.6g}"


@dataclass(frozen=True)
class Contract:
    """One property that was checked.

    Attributes:
      name: the property, as "linear in the cotangent" or "vmap equals a loop".
      status: whether it holds.
      detail: what was found.
    """

    name: str
    status: Status
    detail: str = ""


@dataclass(frozen=True)
class Control:
    """The negative control: the check repeated on mutants, the gradient under test with an error made on purpose.

    Attributes:
      killed: {kind: number of mutants that the check failed}.
      survived: descriptions of the mutants that the check passed: errors that this run could not have detected.
      equivalent: number of mutants that compute the same numbers as the original, which no check can detect.
    """

    killed: dict[str, int] = field(default_factory=dict)
    survived: tuple[str, ...] = ()
    equivalent: int = 0


@dataclass(frozen=True)
class Repair:
    """A change of one source line that makes the gradient right.

    Attributes:
      file, line: as in Python's tracebacks; the first line is 1.
      source: the line without its indentation; "" where the file can't be read.
      change: what makes it right, as "a sum instead of the mean" or "W transposed".
    """

    file: str
    line: int
    source: str
    change: str


@dataclass(frozen=True, repr=False)
class Report:
    """The result of a check.

    Attributes:
      name: what was checked.
      verdict: PASS; FAIL, a wrong gradient; INCONCLUSIVE, this run can't decide; INVALID, it could not be checked.
      reason: why, in one sentence; "" for a plain PASS.
      culprit: what is to blame: "hand", "autodiff", "forward", "reference", "conditioning", "kink", "nondeterminism" or
        "input"; "" for nothing.
      rows: one for each differentiable leaf (or for each network), worst first.
      contracts: the properties that need no reference, and the transforms.
      kinks: a sentence for each input on a kink, with the slope that is taken there.
      control: the negative control; None where it did not run.
      notes: further sentences.
      settings: what the check ran with: seed, dtype, draws, tolerances, reference, device, versions.
      reproduce: one line of Python that makes the failure again; "" where there is none.
      repair: the smallest change found that makes the gradient right, one entry for each line that it touches; empty
        where nothing is wrong or no change is known.
      cause: what a function under test raised, where that is why; not in JSON.
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
    cause: BaseException | None = field(default=None, compare=False, metadata={"json": False})

    @property
    def ok(self) -> bool:
        """Whether the verdict is PASS."""
        return self.verdict == "PASS"

    def raise_if_failed(self) -> None:
        """Raise unless the verdict is PASS.

        Raises:
          CheckFailed: any other verdict, INCONCLUSIVE included: a check that decides nothing must not pass silently.
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        if not self.ok:
            raise CheckFailed(str(self)) from self.cause

    def __str__(self) -> str:
        return RENDERERS["text"](self)

    __repr__ = __str__  # pytest prints the repr of what a failing assertion names

    def to_json(self) -> str:
        """The whole report as JSON under a versioned schema."""
        return serialize.dumps(self, SCHEMA)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote.

        Raises:
          ValueError: not JSON, another schema, or a field that is missing, unknown or of another type.
        """
        try:
            return serialize.loads(cls, text, SCHEMA)
        except ValueError as error:
            raise ValueError(f"Report.from_json: {error}") from None

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page, in place of any older file, and return its path.

        Raises:
          OSError: the file can't be written; the message names it.
          ModuleNotFoundError: without the `report` extra.
        """
        page = RENDERERS["html"](self)  # before the file is opened, so that an error leaves an older page intact
        try:
            Path(path).write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
        except OSError as error:
            raise OSError(error.errno, f"to_html: the page can't be written ({error.strerror})", str(path)) from None
        return Path(path)


# {format: renderer}. The package fills it in, so that reports know nothing of how they are shown.
RENDERERS: dict[Literal["text", "html"], Callable[[Report], str]] = {}
