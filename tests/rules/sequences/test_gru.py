"""gru's second bias. What it shares with rnn is in test_rnn.py."""

import numpy as np
from rules.refusals import refuses

from handgrad import rules
from handgrad.cases.sequences import recurrent


def test_a_gru_has_a_second_bias():
    X, W, U, b, _, H0 = recurrent(3, time=5, inner_bias=True)(np.random.default_rng(0))
    refuses(rules.gru, "c must have shape (3,) to meet U (3, 9), got float64 (9,)", X, W, U, b, b, H0)
