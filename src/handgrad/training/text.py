"""Text as bytes: files to read, some of them held out, in windows of one length."""

import fnmatch
import os
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from handgrad.checks import InputError, check_count

NO_SOURCES = {"site-packages", "dist-packages", "test", "tests", "idle_test"}  # folders inside the standard library's


class Text(NamedTuple):
    """A corpus.

    Attributes:
      train: bytes to learn from.
      held_out: bytes to measure on, of other files.
    """

    train: UInt8[np.ndarray, " n"]
    held_out: UInt8[np.ndarray, " m"]


def load_text(path: Path | None = None, *, pattern: str = "*.py", every: int = 20) -> Text:
    """The bytes of a file, of a folder's files, or of the Python standard library's sources.

    Args:
      path: a file, or a folder; None is the standard library, without its tests.
      pattern: which files of a folder and the folders below it to read, in the order of their paths.
      every: of so many files one is held out, the last one first; of a single file its end, as large a part.
    Raises:
      InputError: no such file or folder, or it can't be read; a folder without such files; a part is empty.
    """
    check_count("load_text", "every", every)
    files = _files(path, pattern)
    try:
        contents = [file.read_bytes() for file in files]
    except OSError as error:
        raise InputError(f"load_text: {error.filename} can't be read ({error.strerror})") from None
    if len(contents) == 1:
        (whole,) = contents
        end = len(whole) - len(whole) // every
        parts = whole[:end], whole[end:]
    else:
        held_out = contents[::-1][::every][::-1]
        last = len(contents) - 1
        parts = b"".join(text for i, text in enumerate(contents) if (last - i) % every), b"".join(held_out)
    if not all(parts):
        total = sum(map(len, contents))
        raise InputError(f"load_text: {path} must have text to learn from and to hold out, got {total} bytes in all")
    return Text(*(np.frombuffer(part, np.uint8) for part in parts))


def windows(
    text: UInt8[np.ndarray, " n"], tokens: int
) -> tuple[UInt8[np.ndarray, "windows tokens"], UInt8[np.ndarray, "windows tokens"]]:
    """(x, target): the text cut into windows of so many bytes, and for each byte the one that follows it.

    Both are views of the text. Its last bytes, too few for a window, are left out.

    >>> x, target = windows(np.frombuffer(b"abcdefgh", np.uint8), 3)
    >>> [bytes(row) for row in x], [bytes(row) for row in target]
    ([b'abc', b'def'], [b'bcd', b'efg'])

    Raises:
      InputError: the text is too short for one window.
    """
    check_count("windows", "tokens", tokens)
    if len(text) <= tokens:
        raise InputError(f"windows: the text must be longer than a window of {tokens} bytes, got {len(text)} bytes")
    both = np.lib.stride_tricks.sliding_window_view(text, tokens + 1)[::tokens]
    return both[:, :-1], both[:, 1:]


def _files(path: Path | None, pattern: str) -> Sequence[Path]:
    """What there is to read, in order."""
    folder = Path(sysconfig.get_path("stdlib")) if path is None else path
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"load_text: path must be a file or a folder, got {folder}")
    found = []
    for place, folders, names in os.walk(folder):
        if path is None:
            folders[:] = [name for name in folders if name not in NO_SOURCES]
        found += [Path(place, name) for name in fnmatch.filter(names, pattern)]
    if not found:
        raise InputError(f"load_text: {folder} must have files {pattern}, got none")
    return sorted(found)
