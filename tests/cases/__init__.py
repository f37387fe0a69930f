"""The one table: rules × inputs, one file for each family of rules.

A row names the rule, draws its arguments and gives an independent reference of the forward pass in plain jax.numpy: no
file here calls a rule of handgrad. Every contract in tests/rules/test_contracts.py runs on every row; an op's first
row is the one that tests of bad input start from. LAYERS makes an op's layer or loss. tests/test_completeness.py sees
to it that no rule has none.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from cases.case import Case as Case
from handgrad import rules

STEMS = {  # each rule's file, under its family: "images/pooling"
    module.name.removeprefix("handgrad.rules.").replace(".", "/"): importlib.import_module(module.name).__all__
    for module in pkgutil.walk_packages(rules.__path__, "handgrad.rules.")
    if not module.ispkg and not module.name.split(".")[-1].startswith("_") and module.name != "handgrad.rules.rule"
}
OPS = {
    name.removesuffix("_forward"): stem for stem, names in STEMS.items() for name in names if name.endswith("_forward")
}
PUBLIC = [name for names in STEMS.values() for name in names]
CASES: list[Case] = []
LAYERS: dict[str, Callable[[], Any]] = {}

for module in pkgutil.iter_modules(__path__):
    if module.name != "case":
        rows = importlib.import_module(f"cases.{module.name}")
        CASES += rows.CASES
        LAYERS |= rows.LAYERS


def first(op: str) -> Case:
    """An op's first row."""
    return next(case for case in CASES if case.op == op)
