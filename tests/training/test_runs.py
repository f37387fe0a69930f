"""Where a run writes, and what it says of the machine."""

import jax
import pytest

from handgrad import InputError
from handgrad.training import machine, make_folder


def test_a_folder_is_made_and_must_be_writable(tmp_path):
    assert make_folder(tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"the output folder must be one that can be written, got .*file"):
        make_folder(tmp_path / "file" / "inside")


def test_the_machine():
    assert machine().keys() == {"date", "device", "cores", "jax", "python"}
    assert machine()["jax"] == jax.__version__
