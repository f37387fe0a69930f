"""Wasserstein distance as a Loss."""

from layers.losses.as_losses import check_losses


def test_values_and_gradients():
    check_losses("wasserstein")
