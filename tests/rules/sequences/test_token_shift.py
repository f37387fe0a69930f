"""token_shift: what its arguments must be; everything else is in the table of cases."""

import numpy as np
from rules.refusals import refuses

from handgrad import rules


def test_refusals():
    X, mu, rule = np.ones((2, 3, 4)), np.ones(4), rules.token_shift
    refuses(rule, "X must have shape (batch, tokens, n), one token at least, got float64 (3, 4)", X[0], mu)
    refuses(rule, "X must have shape (batch, tokens, n), one token at least, got float64 (2, 0, 4)", X[:, :0], mu)
    refuses(rule, "mu must have shape (4,) (one for each feature), got float64 (3,)", X, mu[:3])
    refuses(rule, "x0 must have shape (2, 4) (one row …), got float64 (1, 4)", X, mu, X[:1, 0])
