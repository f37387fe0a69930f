"""PyTorch as a third party: what its dropout makes of the elements that it keeps.

Masks of two libraries differ; the numbers that get through, and their gradients, must not.
"""

import jax
import numpy as np
from helpers import assert_same, passes
from in_torch import F, in_torch, torch

from handgrad import rules

X, DY = np.random.default_rng(0).standard_normal((2, 30, 20))
RATES = (0.0, 0.1, 0.5, 0.9)


def test_dropout():
    settings = [(rate, policy) for rate in RATES for policy in ("save", "recompute")]

    @jax.jit
    def by_hand(X, dY):
        every = [rules.dropout.with_options(rate=rate, residuals=policy) for rate, policy in settings]
        return [passes(rule, dY, X, jax.random.key(0)) for rule in every]

    torch.manual_seed(0)
    theirs = {rate: in_torch(lambda x, rate=rate: F.dropout(x, rate), X, dY=DY)[1] for rate in RATES}
    for (rate, _), (Y, (dX, _)) in zip(settings, by_hand(X, DY), strict=True):
        both = (np.asarray(Y) != 0) & (theirs[rate][0] != 0)
        assert both.any()
        assert_same([np.asarray(a)[both] for a in (Y, dX)], [a[both] for a in theirs[rate]])
