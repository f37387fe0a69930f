"""SIGTERM and Ctrl-C as a flag: training stops between two steps, after a checkpoint, and not in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np


class Interrupted(KeyboardInterrupt):
    """Training was interrupted, after the state was saved: one sentence.

    Attributes:
      signal: what interrupted it; a program's exit status is 128 + signal.
    """

    def __init__(self, sentence: str, number: int):
        super().__init__(sentence)
        self.signal = signal.Signals(number)

    @property
    def status(self) -> int:
        """The exit status."""
        return 128 + self.signal


class Flag:
    """Whether a signal has come, on several processes to any of them.

    Attributes:
      signal: the first that came; None before.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        if number := greatest(self.signal or 0):
            self.signal = signal.Signals(number)
        return bool(number)


@contextlib.contextmanager
def interruptible() -> Iterator[Flag]:
    """SIGTERM and Ctrl-C set the flag inside; a second Ctrl-C interrupts at once.

    Nothing changes outside the main thread, where Python allows no handlers, nor for a signal that is ignored.
    """
    flag, before = Flag(), {}

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal = flag.signal or signal.Signals(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed by Python


def greatest(number: int) -> int:
    """The greatest of the numbers of all processes of the run, which wait for each other here."""
    if jax.process_count() == 1:
        return number
    from jax.experimental.multihost_utils import process_allgather

    return int(np.max(process_allgather(np.array(number))))
