"""The line of the user's source that an equation of a jaxpr comes from."""

import functools
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend.source_info_util import current_name_stack, set_name_stack, user_context

import handgrad

_HOUSE = Path(handgrad.__file__).parent
# Not the user's: JAX, the checker, and what multiplies factors or calls a rule for them.
_PLUMBING = (
    str(Path(str(jax.__file__)).parent),
    str(_HOUSE / "crosscheck"),
    str(_HOUSE / "factors"),
    str(_HOUSE / "checks.py"),
    str(_HOUSE / "rule.py"),
    str(_HOUSE / "meshes.py"),
)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


class Line(NamedTuple):
    """Where an expression stands.

    Attributes:
      file, line: as in a traceback.
      function: the name of the function around it.
      start, end: its columns where it stands on one line and Python says so; else -1.
    """

    file: str
    line: int
    function: str
    start: int = -1
    end: int = -1

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"

    @property
    def text(self) -> str:
        """The line as it stands, without indentation."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def expression(self) -> str:
        """What stands between the columns; "" where they aren't known."""
        if self.start < 0:
            return ""
        return linecache.getline(self.file, self.line).encode()[self.start : self.end].decode(errors="ignore")


def line_of(traceback: Any) -> Line | None:
    """The innermost frame that is the user's; None where JAX doesn't say."""
    return next(iter(_lines(traceback)), None)


def stack_of(traceback: Any, end: Line) -> list[Line]:
    """The user's frames, the innermost first, up to the function that a line is in; none if it isn't among them."""
    found = []
    for line in _lines(traceback):
        found.append(line)
        if (line.file, line.function) == (end.file, end.function):
            return found
    return []


def _lines(traceback: Any) -> Iterator[Line]:
    try:
        frames = list(traceback.frames)  # the innermost first
        codes, offsets = traceback.raw_frames()
    except AttributeError:  # not part of JAX's promises
        return
    candidates = [i for i, frame in enumerate(frames) if not frame.file_name.startswith(_PLUMBING)]
    # A rule that is itself part of an installed library has no frame elsewhere.
    own = [i for i in candidates if not frames[i].file_name.startswith(_LIBRARIES)] or candidates
    for i in own:
        yield Line(frames[i].file_name, frames[i].line_num, codes[i].co_name, *_columns(codes[i], offsets[i]))


def caller(traceback: Any, line: Line) -> int:
    """The stack below the function that a line is in, as a number: another one for another call of it."""
    try:
        frames = list(traceback.frames)
        codes, offsets = traceback.raw_frames()
    except AttributeError:
        return 0
    at = next((i for i, one in enumerate(frames) if (one.file_name, one.line_num) == (line.file, line.line)), 0)
    return hash(tuple(zip(map(id, codes[at + 1 :]), offsets[at + 1 :], strict=True)))


@functools.lru_cache(maxsize=4096)
def _positions(code: Any) -> list[Any]:
    return list(code.co_positions())


def _columns(code: Any, offset: int) -> tuple[int, int]:
    try:
        first, last, start, end = _positions(code)[offset // 2]
    except (AttributeError, IndexError, TypeError):
        return -1, -1
    return (start, end) if first == last and start is not None and end is not None else (-1, -1)


class _Here:
    """In place of a traceback: JAX takes the stack as it is, where it would have taken an earlier one."""

    def __bool__(self) -> bool:
        return False


class watching:  # noqa: N801 (a context manager)
    """Notes where the user's functions return while JAX traces them: `line` is where the last one did.

    It also keeps JAX from giving every equation of a custom_vjp's backward pass the line of the forward call.
    """

    def __enter__(self) -> "watching":
        self.line: Line | None = None
        self.value: Any = None
        self.outside = set_name_stack(current_name_stack())  # which puts back all that is changed here
        self.outside.__enter__()
        self.free = sys.getprofile() is None  # a profiler's place is not taken
        if self.free:
            sys.setprofile(self._event)
        return self

    def __exit__(self, *error: Any) -> None:
        if self.free:
            sys.setprofile(None)
        self.outside.__exit__(*error)

    def _event(self, frame: Any, event: str, value: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not _is_users(code):
            return
        if event == "return":
            # What one function returns and another hands on was returned by the first.
            if self.line is None or value is None or value is not self.value:
                self.line, self.value = Line(code.co_filename, frame.f_lineno, code.co_name), value
        else:
            user_context(_Here()).__enter__()  # what JAX enters next ends it


@functools.lru_cache(maxsize=4096)
def _is_users(code: Any) -> bool:
    own = not code.co_filename.startswith((*_PLUMBING, *_LIBRARIES, "<frozen", "<string>"))
    return own and (code.co_name[0] != "<" or code.co_name == "<lambda>")
