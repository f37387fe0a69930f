"""gru's gates recomputed, and its second bias. What it shares with rnn is in test_rnn.py."""

import jax
import numpy as np
import pytest
from helpers import assert_same, passes

import handgrad as hg
from handgrad import rules
from handgrad.cases.sequences import recurrent

ARGUMENTS = recurrent(3, time=5, inner_bias=True)(np.random.default_rng(0))


def test_recomputed_gates_are_the_same():
    @jax.jit
    def both(*arguments):
        outcomes, gates = [], []
        for residuals in ("save", "recompute"):
            Y, kept = rules.gru_forward(*arguments, residuals=residuals)
            gates.append(kept.gates)
            outcomes.append((Y, passes(rules.gru.with_options(residuals=residuals), Y, *arguments)[1]))
        assert (gates[0].shape, gates[1]) == ((3, 5, 12), None)
        return outcomes

    assert_same(*both(*ARGUMENTS, np.array([5, 2, 4])))


def test_a_gru_has_a_second_bias():
    X, W, U, b, _, H0 = ARGUMENTS
    with pytest.raises(hg.InputError, match=r"^gru_forward: c must have shape \(3,\) to meet U \(3, 9\), got float64"):
        rules.gru_forward(X, W, U, b, b, H0)
