"""The loaders: what they read, and what they say of a file that isn't right."""

import gzip
import struct

import numpy as np
import pytest

from handgrad import InputError
from handgrad.training.digits import load_digits, load_mnist, read_idx


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
LABELS = np.array([3, 1, 4, 1, 9], np.uint8)
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(idx(IMAGES if "images" in name else LABELS))
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
def test_load_mnist(folder, zipped):
    if zipped:
        for name in NAMES:
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
    train, test = load_mnist(folder)
    assert np.array_equal(train.x, IMAGES.reshape(5, 9).astype(np.float32) / 255)
    assert np.array_equal(test.labels, LABELS)
    assert (train.x.dtype, train.labels.dtype) == (np.float32, np.int32)


def broken(name, content, message):
    return pytest.param(name, content, message, id=message[:24])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        broken(NAMES[0], None, "expected train-images-idx3-ubyte or train-images-idx3-ubyte.gz in"),
        broken(NAMES[0], idx(IMAGES)[:-1], "must have 61 bytes for shape (5, 3, 3), got 60"),
        broken(NAMES[0], idx(IMAGES) + b"x", "must have 61 bytes for shape (5, 3, 3), got 62"),
        broken(NAMES[0], idx(IMAGES)[:9], "must have a header of 16 bytes, got 9 bytes"),
        broken(NAMES[0], idx(LABELS), "must begin with the magic number 00000803, got 00000801"),
        broken(NAMES[0], b"", "must begin with the magic number 00000803, got "),
        broken(NAMES[0], gzip.compress(idx(IMAGES))[:-9], "can't be read"),
        broken(NAMES[0], idx(IMAGES[:, :2]), "must hold square images, got shape (5, 2, 3)"),
        broken(NAMES[1], idx(LABELS[:4]), "has 5 images and train-labels-idx1-ubyte 4 labels"),
        broken(NAMES[1], idx(np.array([3, 1, 14, 1, 9], np.uint8)), "labels must be in 0 … 9, got 14 at index 2 of"),
    ],
)
def test_what_is_wrong_with_a_file(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_mnist(folder)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_what_is_wrong_with_a_folder(folder, tmp_path):
    (folder / NAMES[2]).write_bytes(idx(np.zeros((5, 4, 4), np.uint8)))
    with pytest.raises(InputError, match="must have as many pixels, got 9 and 16 in"):
        load_mnist(folder)
    for name in NAMES[:2]:
        (folder / name).write_bytes(idx(IMAGES[:0] if "images" in name else LABELS[:0]))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte must hold square images, got shape \(0, 3, 3\)"):
        load_mnist(folder)
    with pytest.raises(InputError, match="can't be read"):
        read_idx(tmp_path, 1)


def test_real_mnist(shared_data):
    train, test = load_mnist(shared_data / "mnist")
    assert (train.x.shape, test.x.shape) == ((10_000, 784), (10_000, 784))
    assert list(train.labels[:5]) == [5, 0, 4, 1, 9]
    assert list(test.labels[:5]) == [7, 2, 1, 0, 4]


def test_digits():
    train, test = load_digits()
    assert (train.x.shape, test.x.shape) == ((1437, 64), (360, 64))
    assert (train.x.min(), train.x.max()) == (0, 1)
    assert np.bincount(test.labels).min() >= 34
