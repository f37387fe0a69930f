"""The message of an exception, in one line."""

import os
import re
import sysconfig
import textwrap
import traceback

import jax
import numpy as np

LENGTH = 300  # characters at most
# Folders and files of code that only passes an exception on.
_FOLDERS = (os.path.dirname(__file__), os.path.dirname(jax.__file__), os.path.dirname(np.__file__))
_STDLIB = sysconfig.get_paths()["stdlib"]
NOT_THE_USERS = (
    *(os.path.dirname(os.path.abspath(folder)) + os.sep for folder in _FOLDERS[:1]),
    *(os.path.abspath(folder) + os.sep for folder in _FOLDERS[1:]),
    *(os.path.join(_STDLIB, f"{name}.py") for name in ("contextlib", "functools")),
)


def raised(error: BaseException) -> str:
    """An exception as its last line has it: "KeyError: 'cos'"."""
    message = in_short(error)
    return f"{type(error).__name__}{': ' * bool(message)}{message}"


def where_raised(error: BaseException) -> str:
    """The user's line that raised, as "mine.py:24 in backward: tmp['cos']"; "" where there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not os.path.abspath(frame.filename).startswith(NOT_THE_USERS):
            inside = frame.filename.startswith(os.getcwd() + os.sep)
            file = os.path.relpath(frame.filename) if inside else frame.filename
            line = f": {frame.line}" if frame.line else ""
            return f"{file}:{frame.lineno} in {frame.name}{line}"
    return ""


def in_short(error: BaseException) -> str:
    """The line of an exception's message that says what is wrong; "" for an exception without a message.

    That is the first line, and what follows it where it ends in a colon, as in "Binding failed with the error:". Where
    the message quotes a traceback, as that of a callback, it is the exception at the traceback's end.
    """
    message = str(error)
    quoted = re.search(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S[\s\S]*)", message)
    lines = [line.strip() for line in (quoted[1] if quoted else message).splitlines() if line.strip()]
    said = ""
    for line in lines:
        said = f"{said} {line}".strip()
        if not said.endswith(":"):
            break
    return textwrap.shorten(said, LENGTH, placeholder=" ...") if said else ""
