"""SIGTERM and Ctrl-C as a flag."""

import os
import signal
import threading

import pytest

from handgrad.training.interruption import Interrupted, interruptible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("in_foreground")
def test_a_signal_sets_the_flag(number):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with interruptible() as flag:
        assert not flag
        os.kill(os.getpid(), number)
        assert flag
        os.kill(os.getpid(), signal.SIGTERM)  # another one changes nothing
        assert flag.signal == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert Interrupted("one sentence", number).status == 128 + number


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as flag:
            os.kill(os.getpid(), signal.SIGINT)
            assert not flag
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_installed():
    found = []

    def inside():
        with interruptible() as flag:
            found.extend([signal.getsignal(signal.SIGTERM), bool(flag)])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM), False]
