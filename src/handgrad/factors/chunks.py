"""Chunks of a batch, as of gradient accumulation, on every device that holds a part of the batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Int, Shaped


class Chunks(NamedTuple):
    """A batch in chunks, each of which has as many examples on every device.

    A loop along a sharded axis would run in full on every device. So the batch is seen as an array (devices, length),
    and the loop runs along the second axis.

    Attributes:
      devices: on how many the batch may lie, a divisor of its examples.
      size: examples of each device in a chunk.
      whole: how many chunks there are; 0 where the whole batch is `rest`.
      rest: examples of each device that remain after them.
    """

    devices: int
    size: int
    whole: int
    rest: int

    @classmethod
    def of_batch(cls, batch: int, devices: int, factors_size: int, gradient_size: int) -> "Chunks":
        """Chunks whose gradients, written out, take a sixteenth of the factors' memory; at least one example a device.

        Args:
          factors_size: numbers that the factors hold.
          gradient_size: numbers of one example's gradient.
        """
        length = batch // max(devices, 1)
        most = min(max(factors_size * length // (16 * (factors_size + gradient_size * batch) or 1), 1), length)
        # Without a rest there is one program less to compile.
        size = next((k for k in range(most, most // 2, -1) if length % k == 0), most)
        whole, rest = divmod(length, max(size, 1))
        return cls(devices, size, whole, rest) if whole > 1 else cls(devices, size, 0, length)

    def rows(self, start: int | Int[Array, ""], size: int) -> Callable[[Shaped[Array, " batch ..."]], Array]:
        """A function that takes `size` examples of each device, from `start` on, from an array with a row for each
        example."""

        def take(a: Array) -> Array:
            a = a.reshape(self.devices, a.shape[0] // max(self.devices, 1), *a.shape[1:])
            a = jax.lax.dynamic_slice_in_dim(a, start, size, axis=1)
            return a.reshape(self.devices * size, *a.shape[2:])

        return take if self.whole else lambda a: a
