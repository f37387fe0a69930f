"""The cross-check of random networks."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jax.typing import DTypeLike

from handgrad.checks import InputError, check_count
from handgrad.crosscheck import Network, Report, Row, check_networks
from handgrad.models.random_network import random_network


def check_random_networks(
    count: int = 200,
    seed: int = 0,
    dtype: DTypeLike = np.float64,
    *,
    draws: int = 1,
    max_depth: int = 8,
    progress: Callable[[Iterator[Row]], Iterable[Row]] = iter,
) -> Report:
    """Check `count` random networks: any depth to `max_depth`, width to 64, batch to 33, activation, loss, residual
    and repeat.

    Args:
      count: how many networks.
      seed: of the first structure; the others follow.
      dtype: of parameters and data.
      draws: how many networks share a structure, with different numbers: each structure is compiled once.
      max_depth: linear layers in a network, at most.
      progress: wraps the iterator over rows, as a progress bar does.
    Returns:
      Report with one row for each structure, that of its worst leaf.
    Raises:
      InputError: count isn't a positive multiple of draws.
    """
    check_count("check_random_networks", "count", count)
    check_count("check_random_networks", "draws", draws)
    check_count("check_random_networks", "max_depth", max_depth)
    if count % draws:
        raise InputError(f"check_random_networks: count must be a multiple of draws, {draws}, got {count}")
    dtype = np.dtype(dtype)

    def networks() -> Iterator[Network]:
        for i in range(count // draws):
            first, *others = (random_network(seed + i, dtype, max_depth, draw) for draw in range(draws))
            numbers = [network.arguments for network in (first, *others)]
            yield Network(f"{seed + i}", first.model, first.loss, numbers)

    name = f"{count} random networks in {dtype}"
    return check_networks(networks(), seed=seed, name=name, progress=progress)
