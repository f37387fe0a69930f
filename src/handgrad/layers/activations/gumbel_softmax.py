"""gumbel_softmax: a layer that uses its key."""

from jaxtyping import Array, PRNGKeyArray

from handgrad import rules
from handgrad.checks import InputError, check_positive, describe
from handgrad.layers.layer import Layer

__all__ = ["gumbel_softmax"]


def gumbel_softmax(temperature: float = 1.0, *, hard: bool = False) -> Layer:
    """Y = softmax((X + G) / temperature) along the last axis with a key, G being Gumbel noise; without one, no noise.

    Args:
      hard: True makes Y one-hot, straight-through.
    Derivation: docs/derivations/activations/gumbel_softmax.md
    """
    check_positive("gumbel_softmax", "temperature", temperature)
    rule = rules.gumbel_softmax.with_options(temperature=temperature, hard=hard)

    def forward(
        params: tuple[()], x: Array, key: PRNGKeyArray | None = None
    ) -> tuple[Array, rules.GumbelSoftmaxResiduals]:
        if not (isinstance(params, tuple) and len(params) == 0):
            raise InputError(f"gumbel_softmax: params must be (), got {describe(params)}")
        return rule.forward(x, key)

    return Layer(lambda key, x: (), forward, lambda kept, dy: (rule.backward(kept, dy)[0], ()))
