"""The one table: rules, inputs, and independent references. One file a family, of the family's name.

`handgrad check` runs its rows, except those that only tests need; every contract in tests/rules/test_contracts.py runs
on all of them. A rule's first row is the one that represents it. No reference calls anything of handgrad.
"""

from collections.abc import Sequence

from handgrad.cases import (
    activations,
    attention,
    images,
    linear,
    linear_algebra,
    losses,
    nielsen,
    normalization,
    sequences,
    structure,
)
from handgrad.cases.case import Case as Case

FAMILIES = {
    "linear": linear,
    "activations": activations,
    "normalization": normalization,
    "images": images,
    "sequences": sequences,
    "attention": attention,
    "structure": structure,
    "losses": losses,
    "linear_algebra": linear_algebra,
    "nielsen": nielsen,
}
"""The families by name: each is a module with the rows of its rules."""
CASES: list[Case] = [case for family in FAMILIES.values() for case in family.CASES]
"""Every row, family by family."""


def first_rows(cases: Sequence[Case] = CASES) -> dict[str, Case]:
    """Each rule's first row, by the rule's name."""
    return {case.op: case for case in reversed(cases)}
