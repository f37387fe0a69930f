"""Pieces: a batch taken some examples at a time, on every device that it lies on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array


class Pieces(NamedTuple):
    """A batch in pieces, each of which has as many examples on every device.

    An axis that is sharded can't be walked along: every device would do the whole walk. So the batch is an array
    (places, length), the places being the devices that it may lie on, and the walk goes along the second axis.

    Attributes:
      places: a divisor of the batch.
      size: examples of each place in a piece.
      whole: how many such pieces there are; 0 where the batch is one piece.
      rest: examples of each place that are left behind them.
    """

    places: int
    size: int
    whole: int
    rest: int

    @classmethod
    def of_batch(cls, batch: int, places: int, room: int, written: int) -> "Pieces":
        """Pieces that take a sixteenth of the factors' own room; but one example of each place at least.

        Args:
          batch, places: as the attributes.
          room: numbers that the factors hold.
          written: numbers of one example's gradient, written out.
        """
        length = batch // max(places, 1)
        most = min(max(room * length // (16 * (room + written * batch) or 1), 1), length)
        # Without a rest there is one program less to compile.
        size = next((k for k in range(most, most // 2, -1) if length % k == 0), most)
        whole, rest = divmod(length, max(size, 1))
        return cls(places, size, whole, rest) if whole > 1 else cls(places, size, 0, length)

    def rows(self, start: Any, size: int) -> Callable[[Array], Array]:
        """What picks `size` examples of each place, from `start` on, which may be traced, from an array that has a row
        for each example."""

        def pick(a: Array) -> Array:
            a = a.reshape(self.places, a.shape[0] // max(self.places, 1), *a.shape[1:])
            a = jax.lax.dynamic_slice_in_dim(a, start, size, axis=1)
            return a.reshape(self.places * size, *a.shape[2:])

        return pick if self.whole else lambda a: a
