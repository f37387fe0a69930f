"""PyTorch's divergences: values and all gradients, in float64."""

import numpy as np
from rules.losses.in_torch import DISTRIBUTIONS, NUMBERS, RNG, SHAPE, F, N, Z, assert_torchs, elementwise, summed

LOG_P, LOG_Q = np.log(RNG.dirichlet(np.ones(N), (2, *SHAPE[:2])))
COUNTS = RNG.poisson(2, SHAPE) + 0.25  # none is 1, where Stirling's term begins
RATES = RNG.uniform(0.1, 4, SHAPE)


def test_kl_divergence():
    assert_torchs(
        ("kl_divergence", elementwise(F.kl_div), LOG_P, DISTRIBUTIONS),
        ("kl_divergence", elementwise(F.kl_div, log_target=True), LOG_P, LOG_Q, {"log_target": True}),
    )


def test_poisson_loss():
    for log_input, prediction in ((True, Z), (False, RATES)):
        options = [{"log_input": log_input, "full": full} for full in (False, True)]
        pairs = [(elementwise(F.poisson_nll_loss, eps=1e-8, **of), {"epsilon": 1e-8, **of}) for of in options]
        assert_torchs(*(("poisson_loss", loss, prediction, COUNTS, of) for loss, of in pairs))


def test_gaussian_nll():
    """Variances above ε: below it PyTorch passes a slope on that is not the derivative."""
    rows = [
        (lambda a, v, y, full=full: summed(F.gaussian_nll_loss(a, y, v, full=full, eps=1e-6, reduction="none")), full)
        for full in (False, True)
    ]
    assert_torchs(*(("gaussian_nll", loss, Z, RATES, NUMBERS, {"full": full}) for loss, full in rows))
