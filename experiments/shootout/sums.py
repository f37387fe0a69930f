"""Counts of many subjects added up."""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Self


@dataclass
class Sum:
    """A dataclass of counters, lists and numbers that adds another of its kind to itself."""

    def add(self, other: Self) -> None:
        """Another subject's."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            else:
                setattr(self, one.name, mine + theirs)
