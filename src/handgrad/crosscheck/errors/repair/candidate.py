"""A change that might be the repair: what it does, in words, and how far from simple it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

from handgrad.crosscheck.errors.program.program import Frame
from handgrad.crosscheck.errors.program.source import Line
from handgrad.crosscheck.errors.repair.factors import Factor
from handgrad.crosscheck.errors.repair.linear import Place
from handgrad.crosscheck.errors.repair.proposal import Proposal

# Of the catalogue's edits, by kind; 1.2 of the others. What nobody means to write costs most.
COSTS = {
    "sign left out": 0.75,
    "mean for a sum": 0.8,
    "rounded": 0.8,
    "sign of a term": 0.85,
    "swapped operands": 0.85,
    "transposed operand": 1.0,
    "conjugate": 0.9,
    "wrong branch": 1.0,
    "wrong axis": 1.1,
    "dropped factor": 1.5,
    "dropped term": 1.5,
    "off by one": 2.0,
    "column-major": 3.0,
    "one branch alone": 3.0,
    "last one dropped from a sum": 4.0,
    "missing reduction": 4.0,
}


class Candidate(NamedTuple):
    """A change that might be the repair.

    Attributes:
      site: the step that it changes.
      slot: the value that it changes.
      words: what is done to that value, "{}", or to the step.
      alone: the same where the value is all that its line computes.
      cost: how far from simple it is.
      change: the step's.
      movable: whether a later reader of the value may be changed as well.
      repeated: the other sites of the same expression, where a Python loop or a helper runs it again: changed too.
      line: where to write it, if not at the site's own line.
      also: other lines where a change as simple does the same, the likeliest first.
      complete: whether the words, and the line, need nothing more.
    """

    site: int
    slot: int
    words: str
    alone: str
    cost: float
    change: Callable[[Frame], list[Any]]
    movable: bool = False
    repeated: tuple[int, ...] = ()
    line: Line | None = None
    also: tuple[Line, ...] = ()
    complete: bool = False

    @property
    def changes(self) -> dict[int, Callable[[Frame], list[Any]]]:
        """What it changes."""
        return dict.fromkeys((self.site, *self.repeated), self.change)


def scaled(place: Place, returned: bool, proposal: Proposal, factor: Factor, replaced: bool) -> Candidate:
    """A proposal times a factor, in place of what stands at a place or added to it.

    Args:
      returned: whether the place is where the cotangent is returned.
    """

    def value(frame: Frame, v: Any) -> Any:
        w = factor.value(frame.program, frame.step) * proposal.value(frame, v)
        return w if replaced else v + w

    words, alone, cost = _worded(proposal, factor, replaced)
    # A factor or a term belongs to the last of a chain of values, another value in place of one to the first.
    own = proposal.replaced == "{}"
    cost += 0.1 * (own and not returned and place.operand is not None)
    cost += 1e-4 * (-place.site if own or not replaced else place.site)
    movable = not replaced or own or " times " in words
    return Candidate(place.site, place.slot, words, alone, cost, place.change(value), movable)


def _worded(proposal: Proposal, factor: Factor, replaced: bool) -> tuple[str, str, float]:
    """(what is done to the value "{}", the same where it is the whole line, cost)."""
    times, cost = factor.words, proposal.cost + factor.cost
    if not replaced:
        size = times.removeprefix("−")
        term = proposal.term if size == "1" else f"{size} × {proposal.term}"
        words = f"{term} {'subtracted' if times.startswith('−') else 'added'}"
        return words + " from {}" * times.startswith("−") + " to {}" * (not times.startswith("−")), words, cost + 0.3
    if proposal.replaced == "{}":
        return *_multiplied(times), cost
    if times == "1":
        return proposal.replaced, proposal.alone, cost
    beside = " and the sign flipped" if times == "−1" else f", × {times}"
    return proposal.replaced + beside, proposal.alone + beside, cost


def _multiplied(times: str) -> tuple[str, str]:
    """The words for a constant factor."""
    if times == "−1":
        return "the sign of {} flipped", "its sign flipped"
    if times.startswith("1 / "):
        return f"{{}} divided by {times[4:]}", f"a division by {times[4:]}"
    return f"{{}} × {times}", f"a factor of {times}"
