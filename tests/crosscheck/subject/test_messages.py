"""One informative line out of an exception's message."""

import jax
import jax.numpy as jnp
import pytest

from handgrad.crosscheck import check_custom_vjp, check_rule
from handgrad.crosscheck.subject.messages import in_short

TRACEBACK = """INTERNAL: CpuCallback error calling callback: Traceback (most recent call last):
  File "mine.py", line 3, in f
    raise KeyError("x")

KeyError: 'x'
At:
  elsewhere"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one\ntwo", "one"),
        ("\n  one \n", "one"),
        ("Failed with the error:\n  missing 'y'\nmore", "Failed with the error: missing 'y'"),
        ("nothing after:", "nothing after:"),
        ("a:\n\nb:\nc", "a: b: c"),
        (TRACEBACK, "KeyError: 'x'"),
    ],
)
def test_the_line(message, line):
    assert in_short(ValueError(message)) == line


def test_a_long_one_is_shortened():
    assert in_short(ValueError("word " * 1000)).endswith("word ...")
    assert len(in_short(ValueError("word " * 1000))) <= 300


def test_a_report_says_it():
    f = jax.custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, ()), lambda r, g: (g, g))
    report = check_custom_vjp(f, None, 2.0)
    assert "with the error: missing a required argument: 'y'" in report.reason

    def told(x):
        raise ValueError("it can't be:\n  too late")

    def backward(x, g):
        return (jax.pure_callback(told, jax.ShapeDtypeStruct(x.shape, x.dtype), g),)

    report = check_rule(lambda x: (x, x), backward, jnp.ones(3))
    assert report.verdict == "INVALID"
    assert "ValueError: it can't be: too late" in report.reason
