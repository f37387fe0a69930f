"""The message of an exception, in one line."""

import re
import textwrap

LENGTH = 300  # characters at most


def raised(error: BaseException) -> str:
    """An exception as its last line has it: "KeyError: 'cos'"."""
    message = in_short(error)
    return f"{type(error).__name__}{': ' * bool(message)}{message}"


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
