"""Whole networks, composed from layers."""

from handgrad.models.mlp import mlp
from handgrad.models.random_check import check_random_networks
from handgrad.models.random_network import RandomNetwork, random_network

__all__ = ["RandomNetwork", "check_random_networks", "mlp", "random_network"]
