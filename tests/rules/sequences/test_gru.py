"""gru's second bias. What it shares with rnn is in test_rnn.py."""

import numpy as np
import pytest

import handgrad as hg
from handgrad import rules
from handgrad.cases.sequences import recurrent

ARGUMENTS = recurrent(3, time=5, inner_bias=True)(np.random.default_rng(0))


def test_a_gru_has_a_second_bias():
    X, W, U, b, _, H0 = ARGUMENTS
    with pytest.raises(hg.InputError, match=r"^gru_forward: c must have shape \(3,\) to meet U \(3, 9\), got float64"):
        rules.gru_forward(X, W, U, b, b, H0)
