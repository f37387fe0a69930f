"""Margin losses as Losses."""

import numpy as np
import pytest
from layers.losses.as_losses import check_losses, check_of_several

import handgrad as hg
from handgrad import rules

X, Y = np.random.default_rng(0).standard_normal((4, 3, 2, 5)), np.resize([1.0, -1.0], (4, 2, 5))


def test_values_and_gradients():
    check_losses("margins", without=("margin_ranking_loss", "triplet_loss"))


def test_predictions_along_axis_1():
    """What the rule has of each alone, and the cotangents in their places."""
    triplets = lambda x: rules.triplet_loss(*(x[:, i] for i in range(3)), margin=0.5)  # noqa: E731
    ranking = lambda x: rules.margin_ranking_loss(x[:, 0], x[:, 1], Y, margin=0.5)  # noqa: E731
    check_of_several(
        [
            (hg.triplet_loss(0.5), lambda x: x, Y, triplets),
            (hg.margin_ranking_loss(0.5), lambda x: x[:, :2], Y, ranking),
        ],
        X,
    )
    for loss, n in ((hg.triplet_loss(), 3), (hg.margin_ranking_loss(), 2)):
        with pytest.raises(hg.InputError, match=rf"prediction must have shape \(batch, {n}, ...\), got float64 \(4, 1"):
            loss.forward(X[:, :1], Y)
