"""What an entry of the catalogue is: a way in which a gradient is wrong, made and recognized."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.errors.fit import Fit, Found
from handgrad.crosscheck.errors.gradient import Gradient, Made


class Error(NamedTuple):
    """A way in which a gradient is wrong.

    Attributes:
      kind: its name; the negative control counts by it.
      make: (words, M) for every M that a right gradient becomes by this error, like g in shape and dtype but for
        errors of shape and dtype. Nothing where the error doesn't apply.
      recognize: the explanations of a fit by this error. None: the gradient under test is an M, a multiple of one, or
        the right gradient with some of it mixed in. An error with a number that only the gradient under test has, as
        the bound where it is clipped, recognizes itself.
    """

    kind: str
    make: Callable[[Gradient], Iterable[Made]]
    recognize: Callable[[Fit], Iterable[Found]] | None = None

    def recognized(self, fit: Fit) -> Iterable[Found]:
        """Its explanations of a fit; none where it is another error."""
        return self.recognize(fit) if self.recognize else fit.instead(self.make(fit.of))


def instead(
    kind: str, words: str, make: Callable[[Gradient], np.ndarray], applies: Callable[[Gradient], bool] = lambda _: True
) -> Error:
    """An error with one M: make(of) instead of the gradient, wherever it applies."""
    return Error(kind, lambda of: [(words, make(of))] if applies(of) else [])


def along_axes(kind: str, words: str, make: Callable[[np.ndarray, int], np.ndarray]) -> Error:
    """An error with an M for each axis of more than one element: make(g, axis), repeated where it has one."""

    def each(of: Gradient) -> Iterator[Made]:
        for axis in of.long_axes:
            yield words.format(axis=axis - 1), np.broadcast_to(make(of.g, axis), of.g.shape)

    return Error(kind, each)


def nothing(_: Gradient) -> list[Made]:
    """What an error makes that is only recognized."""
    return []


def unrecognized(_: Fit) -> list[Found]:
    """The explanations by an error that another entry recognizes."""
    return []
