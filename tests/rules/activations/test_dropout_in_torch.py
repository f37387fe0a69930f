"""PyTorch as a third party: what its dropout makes of the elements that it keeps.

Masks of two libraries differ; the numbers that get through, and their gradients, must not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((2, 30, 20))


@pytest.mark.parametrize("policy", ["save", "recompute"])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout(rate, policy):
    x = torch.tensor(X, requires_grad=True)
    torch.manual_seed(0)
    expected = torch.nn.functional.dropout(x, rate)
    expected.backward(torch.tensor(DY))
    Y, residuals = rules.dropout_forward(jnp.asarray(X), jax.random.key(0), rate=rate, residuals=policy)
    dX, _ = rules.dropout_backward(residuals, jnp.asarray(DY), rate=rate)
    theirs = expected.detach().numpy()
    both = (np.asarray(Y) != 0) & (theirs != 0)
    assert both.any()
    assert_same((np.asarray(Y)[both], np.asarray(dX)[both]), (theirs[both], x.grad.numpy()[both]))
