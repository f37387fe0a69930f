"""The table's rows: inputs that show something, and references that stand on their own."""

import functools

import jax
import numpy as np
import pytest

from handgrad import rules
from handgrad.cases import CASES, first_rows

CHECKED = [case for case in CASES if not case.tests_only]


@pytest.mark.parametrize("case", CHECKED, ids=str)
def test_inputs_of_a_checked_row(case):
    """No two numbers alike, of both signs; the same for the same seed, others for another."""
    arguments = case.arguments()
    numbers = np.concatenate([np.ravel(a) for a in arguments if a is not None and a.dtype == np.float64])
    assert len(np.unique(numbers)) == numbers.size
    assert (numbers > 0).any()
    assert (numbers < 0).any() or case.op in ("binary_cross_entropy", "sinkhorn")  # probabilities and costs
    assert all(np.array_equal(a, b) for a, b in zip(arguments, case.arguments(), strict=True))
    differ = [not np.array_equal(a, b) for a, b in zip(arguments, case.arguments(1), strict=True)]
    assert any(differ)


def test_every_rule_is_checked():
    assert {case.op for case in CHECKED} == {case.op for case in CASES}


def test_no_reference_calls_a_rule(monkeypatch):
    """Nor does a peer: they run where every function of handgrad.rules is gone."""
    functions = {}
    for case in CASES:
        functions.setdefault(case.reference, (case.expected, case))
        if case.peer is not None:
            functions.setdefault(case.peer, (functools.partial(case.peer, **case.of_values), case))
    for name in dir(rules):
        if callable(getattr(rules, name)):
            monkeypatch.setattr(rules, name, None)
    for function, case in functions.values():
        jax.eval_shape(function, *case.arguments())


def test_every_equation_of_backpropagation_has_a_row(monkeypatch):
    for name in [name for name in dir(rules) if name.startswith("bp") and name[2].isdigit()]:
        case = first_rows()["bp_batch" if name.endswith("batch") else "bp_example"]
        forward, backward = case.settled
        C, residuals = jax.eval_shape(forward, *case.arguments())
        with monkeypatch.context() as context:
            context.setattr(rules, name, None)
            with pytest.raises(TypeError, match="NoneType"):
                jax.eval_shape(backward, residuals, C)
