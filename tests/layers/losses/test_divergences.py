"""Divergences as Losses."""

import numpy as np
import pytest
from layers.losses.as_losses import check_losses, check_of_several

import handgrad as hg
from handgrad import rules

X, Y = np.random.default_rng(0).standard_normal((2, 4, 3))


def test_values_and_gradients():
    check_losses("divergences", without=("gaussian_nll",))


def test_a_pair_of_predictions():
    loss = hg.gaussian_nll(full=True)
    of_rule = lambda x: rules.gaussian_nll(x, x**2, Y, full=True)  # noqa: E731
    check_of_several([(loss, lambda x: (x, x**2), Y, of_rule)], X)
    with pytest.raises(hg.InputError, match=r"^gaussian_nll: prediction must be a pair"):
        loss.forward(X, Y)
