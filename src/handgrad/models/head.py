"""What a language model ends in: logits, or a projection that leaves its last product to the loss."""

from typing import Literal

from handgrad.checks import check_choice
from handgrad.layers import Layer, linear, projection, tied_head, tied_projection

Head = Literal["logits", "projection"]


def made_head(where: str, head: Head, vocabulary: int, *, tied: bool = False, bias: bool = False) -> Layer:
    """The last layer; of either kind it has the same parameters.

    Args:
      where: the model, for its errors.
      head: the config's.
      tied: whether its weights have the shape of an embedding's table, to be shared with one.
      bias: whether an untied one has a bias.
    """
    check_choice(where, "head", head, ("logits", "projection"))
    if tied:
        return tied_head(vocabulary) if head == "logits" else tied_projection(vocabulary)
    return (linear if head == "logits" else projection)(vocabulary, bias=bias)
