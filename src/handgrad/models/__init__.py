"""Whole networks, composed."""

from handgrad.models.mlp import mlp
from handgrad.models.random_network import RandomNetwork, random_network

__all__ = ["RandomNetwork", "mlp", "random_network"]
