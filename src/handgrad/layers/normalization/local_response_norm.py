"""local_response_norm as a layer: the rule of the same name."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["local_response_norm"]


def local_response_norm(size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Layer:
    """Each feature over a power of its neighbors' mean square, x / (k + alpha m)^beta."""
    return from_rule(rules.local_response_norm, size=size, alpha=alpha, beta=beta, k=k)
