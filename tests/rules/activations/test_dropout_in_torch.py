"""PyTorch as a third party: what its dropout makes of the elements that it keeps.

Masks of two libraries differ; the numbers that get through, and their gradients, must not.
"""

import jax
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from in_torch import in_torch

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party

X, DY = np.random.default_rng(0).standard_normal((2, 30, 20))
RATES = (0.0, 0.1, 0.5, 0.9)


def test_dropout():
    @optimized_jit
    def by_hand(X, dY):
        found = {}
        for rate in RATES:
            for policy in ("save", "recompute"):
                Y, residuals = rules.dropout_forward(X, jax.random.key(0), rate=rate, residuals=policy)
                found[rate, policy] = Y, rules.dropout_backward(residuals, dY, rate=rate)[0]
        return found

    torch.manual_seed(0)
    theirs = {rate: in_torch(lambda x, rate=rate: F.dropout(x, rate), X, dY=DY)[1] for rate in RATES}
    for (rate, _), found in by_hand(X, DY).items():
        both = (np.asarray(found[0]) != 0) & (theirs[rate][0] != 0)
        assert both.any()
        assert_same([np.asarray(a)[both] for a in found], [a[both] for a in theirs[rate]])
