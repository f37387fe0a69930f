"""How fast each pair of features rotates, and the ways to read more tokens than a model was trained on (RoPE scaling).

A scaling is a function (speeds, base, tokens) -> (speeds, size), of NumPy arrays: all of it is known while the program
is traced. Rotated queries and keys are multiplied by `size`.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["LinearScaling", "Llama3Scaling", "NtkScaling", "RotaryScaling", "YarnScaling"]

Speeds = Float[np.ndarray, " pairs"]


class LinearScaling(NamedTuple):
    """Every pair rotates `factor` times slower: position interpolation (Chen et al., 2023)."""

    factor: float

    def __call__(self, speeds: Speeds, base: float, tokens: int) -> tuple[Speeds, float]:
        return speeds / self.factor, 1.0


class NtkScaling(NamedTuple):
    """A larger base, with which the slowest pair rotates `factor` times slower and the fastest as before (NTK-aware).

    Attributes:
      factor: how many times as many tokens.
      original_tokens: dynamic: with up to so many tokens nothing is scaled, and with t times as many the factor is
        factor × t − (factor − 1). None is the same factor always.
    """

    factor: float
    original_tokens: int | None = None

    def __call__(self, speeds: Speeds, base: float, tokens: int) -> tuple[Speeds, float]:
        factor = self.factor
        if self.original_tokens is not None:
            factor = factor * max(1.0, tokens / self.original_tokens) - (factor - 1)
        return speeds * factor ** (-np.arange(len(speeds)) / max(1, len(speeds) - 1)), 1.0


class YarnScaling(NamedTuple):
    """YaRN (Peng et al., 2023): pairs with many turns in `original_tokens` rotate as before, those with few `factor`
    times slower, and a ramp of pairs lies in between; queries and keys become `attention_factor` times as large.

    Attributes:
      factor: how many times as many tokens.
      original_tokens: those that the model was trained on.
      beta_fast, beta_slow: the turns at which the ramp begins and ends.
      attention_factor: None is 0.1 ln(factor) + 1.
      truncate: whether the ramp begins and ends at whole pairs.
    """

    factor: float
    original_tokens: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __call__(self, speeds: Speeds, base: float, tokens: int) -> tuple[Speeds, float]:
        pairs = len(speeds)

        def pair_of(turns: float) -> float:
            return pairs * math.log(self.original_tokens / (2 * math.pi * turns)) / math.log(base)

        low, high = pair_of(self.beta_fast), pair_of(self.beta_slow)
        low, high = (math.floor(low), math.ceil(high)) if self.truncate else (low, high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        ramp = np.clip((np.arange(pairs) - low) / (high - low or 0.001), 0, 1)
        size = yarn_size(self.factor) if self.attention_factor is None else self.attention_factor
        return speeds * (1 - ramp) + speeds / self.factor * ramp, size


class Llama3Scaling(NamedTuple):
    """Llama 3.1's: pairs with at least `high` turns in `original_tokens` rotate as before, those with at most `low`
    `factor` times slower, those in between by a mean of the two that is linear in the turns (Dubey et al., 2024)."""

    factor: float
    original_tokens: int
    low: float = 1.0
    high: float = 4.0

    def __call__(self, speeds: Speeds, base: float, tokens: int) -> tuple[Speeds, float]:
        turns = self.original_tokens * speeds / (2 * math.pi)
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return speeds * kept + speeds / self.factor * (1 - kept), 1.0


RotaryScaling = LinearScaling | NtkScaling | YarnScaling | Llama3Scaling
"""How the speeds of rotary positions are scaled to longer contexts."""


def yarn_size(factor: float, m: float = 1.0) -> float:
    """0.1 m ln(factor) + 1, and 1 where nothing is scaled."""
    return 0.1 * m * math.log(factor) + 1 if factor > 1 else 1.0


def rotary_speeds(n: int, base: float, scaling: RotaryScaling | None, tokens: int) -> tuple[Speeds, float]:
    """The angle between two tokens of each of n / 2 pairs, base^(−2i/n), scaled; and how large they become."""
    speeds = float(base) ** (-np.arange(n // 2) / (n // 2))
    return (speeds, 1.0) if scaling is None else scaling(speeds, float(base), tokens)
