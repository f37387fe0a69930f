"""Images of digits, as (x, labels): scikit-learn's own, or MNIST's IDX files."""

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from handgrad.checks import InputError
from handgrad.extras import install

# The IDX format: two zero bytes, a code for the type of number, the number of axes; then each axis' length, big-endian.
UNSIGNED_BYTE = 0x08
MNIST = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Split(NamedTuple):
    """Images and their labels.

    Attributes:
      x: gray values in [0, 1]; one row of height × width pixels for each image, as loaded.
      labels: digits, 0 … 9.
    """

    x: Float32[np.ndarray, "n ..."]
    labels: Int32[np.ndarray, " n"]


def load_digits(test_size: int = 360, seed: int = 0) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits of 8 × 8 pixels, split into training and test set by class.

    Raises:
      InputError: scikit-learn, of the extra `experiments`, is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError:
        raise InputError(f"load_digits: needs scikit-learn: {install('experiments')}") from None

    x, labels = (np.asarray(array) for array in bundled(return_X_y=True))
    numbers = np.arange(len(labels))
    train, test = train_test_split(numbers, test_size=test_size, random_state=seed, stratify=labels)
    whole = Split((x / 16).astype(np.float32), labels.astype(np.int32))
    return Split(*(array[train] for array in whole)), Split(*(array[test] for array in whole))


def load_mnist(folder: Path) -> tuple[Split, Split]:
    """Training and test set from a folder with MNIST's four IDX files, each gzipped or not.

    Raises:
      InputError: a file is missing, cut short, too long or of another kind; there are no images, or they aren't square
        or not of one size; images and labels differ in number; a label is outside 0 … 9.
    """
    train, test = _load_split(folder, *MNIST["train"]), _load_split(folder, *MNIST["test"])
    if train.x.shape[1] != test.x.shape[1]:
        sizes = f"{train.x.shape[1]} and {test.x.shape[1]}"
        raise InputError(f"load_mnist: training and test images must have as many pixels, got {sizes} in {folder}")
    return train, test


def read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file of unsigned bytes with this number of axes.

    Raises:
      InputError: the file can't be read, is cut short, too long or of another kind.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"read_idx: {path} can't be read: {error}") from None
    magic = bytes([0, 0, UNSIGNED_BYTE, axes])
    if content[:4] != magic:
        raise InputError(f"read_idx: {path} must begin with the magic number {magic.hex()}, got {content[:4].hex()}")
    header = 4 + 4 * axes
    if len(content) < header:
        raise InputError(f"read_idx: {path} must have a header of {header} bytes, got {len(content)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], ">u4"))
    if len(content) != header + math.prod(shape):
        raise InputError(
            f"read_idx: {path} must have {header + math.prod(shape)} bytes for shape {shape}, got {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _load_split(folder: Path, images_name: str, labels_name: str) -> Split:
    images_path, labels_path = idx_file(folder, images_name), idx_file(folder, labels_name)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise InputError(
            f"load_mnist: {images_path.name} has {len(images)} images and {labels_path.name} {len(labels)} labels"
        )
    if len(images) == 0 or images.shape[1] != images.shape[2]:
        raise InputError(f"load_mnist: {images_path.name} must hold square images, got shape {images.shape}")
    outside = np.flatnonzero(labels > 9)
    if outside.size:
        at = int(outside[0])
        raise InputError(f"load_mnist: labels must be in 0 … 9, got {labels[at]} at index {at} of {labels_path.name}")
    return Split(images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int32))


def idx_file(folder: Path, name: str) -> Path:
    """The IDX file of this name, gzipped or not.

    Raises:
      InputError: there is none.
    """
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise InputError(f"idx_file: expected {name} or {name}.gz in {folder}, got neither")
