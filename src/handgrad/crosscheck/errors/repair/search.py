"""Single changes of a backward program that make one leaf's cotangent right."""

from collections.abc import Iterator

from handgrad.crosscheck.errors.repair.candidate import Candidate, scaled
from handgrad.crosscheck.errors.repair.exchanges import exchanges
from handgrad.crosscheck.errors.repair.leaf import Leaf
from handgrad.crosscheck.errors.repair.proposal import Proposal
from handgrad.crosscheck.errors.repair.proposals import proposals
from handgrad.crosscheck.errors.repair.spots import Spot, fitted, responses, spots
from handgrad.crosscheck.errors.repair.steps import edited, everywhere, reshaped

TIERS = 3
PLAIN = 1.1  # the cost of any factor where the whole cotangent lacks it
TRIED = 2.0  # cost up to which functions are tried where nothing tells what is missing


def candidates(leaf: Leaf) -> Iterator[list[Candidate]]:
    """Changes that make the leaf right at the inputs of the search, in tiers of falling simplicity."""
    if leaf.misshapen:
        yield list(reshaped(leaf))
        return
    changes = [*edited(leaf), *everywhere(leaf), *exchanges(leaf)]
    found = list(spots(leaf))
    for tier in range(TIERS):
        yield changes + [one for spot in found if leaf.budget.left > 0 for one in _fitting(leaf, spot, tier)]
        changes = []
        unfit = [spot for spot in found if spot.looped or not spot.replaces] if tier < 2 else []
        yield [one for spot in unfit if leaf.budget.left > 0 for one in _tried(leaf, spot, tier)]


def _fitting(leaf: Leaf, spot: Spot, tier: int) -> Iterator[Candidate]:
    """What may stand at a place instead, or beside what stands there, times what its effect tells."""
    if not spot.adds:
        return
    kept, R = responses(leaf, spot, list(proposals(spot.place, spot.step, spot.v, leaf.visible, tier)))
    if not kept:
        return
    for i, c in fitted(R, leaf.missing, leaf.fit):
        if kept[i].replaced != "{}":
            yield from _meant(leaf, spot, kept[i], c, replaced=False)
    if spot.replaces:
        for i, c in fitted(R, leaf.missing + spot.own, leaf.fit):
            if kept[i].replaced:
                yield from _meant(leaf, spot, kept[i], c, replaced=True)


def _meant(leaf: Leaf, spot: Spot, proposal: Proposal, c: float, replaced: bool) -> Iterator[Candidate]:
    """A proposal times whatever a number may mean."""
    for factor in leaf.visible.factors.meanings(c, spot.step):
        # Where nothing but a constant factor is wrong, that is what the diagnosis says: a plain number is likely.
        if leaf.multiple is not None and replaced and proposal.replaced == "{}":
            factor = factor._replace(cost=min(factor.cost, PLAIN))
        yield scaled(spot.place, spot.step.name == "return", proposal, factor, replaced)


def _tried(leaf: Leaf, spot: Spot, tier: int) -> Iterator[Candidate]:
    """Where a value's effect isn't linear, each change is tried."""
    # What is put or added inside a loop may itself change with the iteration before.
    looped = spot.looped and tier == 0
    for proposal in proposals(spot.place, spot.step, spot.v, leaf.visible, tier):
        own = proposal.replaced == "{}"
        if tier and proposal.cost > TRIED:
            continue
        replaced = [True] if proposal.replaced and (looped or not spot.replaces) else []
        added = [False] if not own and (looped or not spot.adds) else []
        for way in replaced + added:
            for factor in leaf.visible.factors.tried(own)[own:]:
                candidate = scaled(spot.place, spot.step.name == "return", proposal, factor, way)
                if leaf.makes_right(candidate.site, candidate.change):
                    yield candidate
