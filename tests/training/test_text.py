"""Text as bytes: which files are read, what is held out, and windows."""

import numpy as np
from helpers import assert_refused

from handgrad.training import load_text, windows


def written(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_bytes(content)
    return folder


def test_files_of_a_folder_in_order_every_third_held_out(tmp_path):
    written(tmp_path, b=b"b\xff", a=b"a", d=b"d", c__inside=b"c", e=b"e")
    (tmp_path / "other.md").write_bytes(b"other")
    text = load_text(tmp_path, pattern="*.txt", every=3)
    assert [part.tobytes() for part in text] == [b"acd", b"b\xffe"]
    assert text.train.dtype == np.uint8


def test_the_end_of_a_file_is_held_out(tmp_path):
    (tmp_path / "one").write_bytes(bytes(range(50)))
    train, held_out = load_text(tmp_path / "one", every=10)
    assert train.tolist() == list(range(45))
    assert held_out.tolist() == list(range(45, 50))


def test_the_standard_library_without_its_tests():
    text = load_text()
    assert len(text.train) > 10 * len(text.held_out) > 1e6
    whole = text.train.tobytes() + text.held_out.tobytes()
    assert b"class JSONDecoder" in whole
    assert b"class TestCase(object)" in whole  # unittest's own
    assert b"class TestCPyJSON" not in whole  # of its tests


def test_windows_are_views_and_targets_the_next_bytes():
    text = np.arange(11, dtype=np.uint8)
    x, target = windows(text, 3)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert np.array_equal(target, x + 1)
    assert np.shares_memory(x, text)


def test_bad_input(tmp_path):
    empty, short = written(tmp_path, empty=b"", short=b"abc") / "empty.txt", tmp_path / "short.txt"
    assert_refused(
        {
            f"load_text: path must be a file or a folder, got {tmp_path}/none": lambda: load_text(tmp_path / "none"),
            rf"load_text: {tmp_path} must have files \*.py, got none": lambda: load_text(tmp_path),
            f"load_text: {empty} must have text to learn from and to hold out, got 0 bytes in all": lambda: load_text(
                empty
            ),
            f"load_text: {short} must have text .* got 3 bytes in all": lambda: load_text(short),
            "load_text: every must be a positive integer, got 0": lambda: load_text(empty, every=0),
            "windows: the text must be longer than a window of 3 bytes, got 3 bytes": lambda: windows(np.ones(3), 3),
        }
    )


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = written(tmp_path, one=b"text") / "one.txt"

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert_refused({f"load_text: {path} can't be read .Permission denied.": lambda: load_text(path)})
