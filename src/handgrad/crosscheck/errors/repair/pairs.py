"""Two changes at once."""

from collections.abc import Iterator

from handgrad.crosscheck.errors.repair.search import Candidate, Leaf


def pairs(leaf: Leaf) -> Iterator[tuple[Candidate, Candidate]]:
    """Pairs of changes that make a leaf right at the inputs of the search."""
    return iter(())
