"""What an entry of the catalogue makes is what it recognizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from crosscheck.errors.specimens import SHAPES, holds, made, specimen

from handgrad.crosscheck.errors import diagnose
from handgrad.crosscheck.errors.catalogue import CATALOGUE
from handgrad.crosscheck.errors.error import nothing

# Errors with no pattern, and with a bound that another number is as true as.
UNTOLD = ("noise", "small or large ones dropped")
TOLD = [error for error in CATALOGUE if error.make is not nothing and error.kind not in UNTOLD]


@pytest.mark.parametrize("error", TOLD, ids=lambda error: error.kind)
def test_what_the_catalogue_makes_it_recognizes(error):
    rng = np.random.default_rng(0)
    found = []
    for shape, zeros in ((shape, zeros) for zeros in (0, 0.1) for shape in SHAPES):
        for dtype in (
            (np.float64, np.complex128) if "conjugate" in error.kind or "part" in error.kind else (np.float64,)
        ):
            s = specimen(rng, shape, dtype=dtype)
            s.value[rng.random(shape) < zeros] = 0
            found += [(diagnose(broken), words, shape) for broken, words in made(error, s)]
    missed = [f"{shape}: {said!r} for {words!r}" for said, words, shape in found if not holds(said, words)]
    assert found
    assert len(missed) <= len(found) // 10, "\n".join(missed[:10])


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.complex64, jnp.bfloat16])
def test_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    kinds = ("scale", "batch factor", "sign", "dropped leaf", "transposed", "examples permuted", "reversed", "NaN")
    for shape in SHAPES:
        s = specimen(rng, shape, dtype=dtype)
        for error in (error for error in TOLD if error.kind in kinds):
            for broken, words in made(error, s):
                said = diagnose(broken)
                assert holds(said, words) or words == "1.01 × too large", (error.kind, said, words)
