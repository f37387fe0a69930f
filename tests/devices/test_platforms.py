"""Every rule and model lowers for GPUs and TPUs: the programs are made on a machine that has none, and not run."""

import jax
import jax.numpy as jnp
import pytest
from case_programs import by_hand, drawn
from devices.test_models import drawn as drawn_model, every_model, of_model

from handgrad.cases import first_rows

ACCELERATORS = ("cuda", "rocm", "tpu")


def programs(function, arguments):
    return jax.export.export(jax.jit(function), platforms=ACCELERATORS)(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rules(dtype):
    for case in first_rows().values():
        if dtype in case.reduced:
            assert programs(by_hand(case), drawn(case, dtype)).platforms == ACCELERATORS


@every_model
def test_models(name):
    assert programs(of_model(name), drawn_model(name)).platforms == ACCELERATORS
