"""Every rule with its batch on several devices, under Explicit axes, is the rule on one device."""

import jax
import pytest
from cases import CASES
from devices.on_devices import mesh_of, put
from helpers import assert_same
from rules.test_contracts import by_hand, drawn, grouped, rule_of

from handgrad.factors import is_factor

ALL = [(case,) for case in CASES]
every = pytest.mark.parametrize("case", grouped(ALL))


@every
def test_explicit_axes(case):
    dY, *arguments = drawn(case)
    forward, backward = rule_of(case)
    _, cotangents = jax.eval_shape(
        lambda dY, *arguments: (lambda Y, r: (Y, backward(r, dY)))(*forward(*arguments)), dY, *arguments
    )
    batch = next(a for a in arguments if a is not None and a.shape).shape[0]
    if batch == 0 or batch > 8:
        pytest.skip("batch")
    mesh = mesh_of("explicit", batch)

    def place(a, cotangent=None):
        has_batch = a is not None and not is_factor(cotangent) and a.shape[:1] == (batch,)
        return a if a is None else put(mesh, a, *(("data",) if has_batch else ()))

    cotangents = (*cotangents, *(None for _ in arguments))
    placed = [place(a, c) for a, c in zip(arguments, cotangents)]
    dY_placed = jax.tree.map(place, dY)
    run = by_hand(case)
    found = jax.jit(run)(dY_placed, *placed)
    with jax.set_mesh(mesh):
        found2 = jax.jit(run)(dY_placed, *placed)
    assert_same(jax.device_get(found), jax.device_get(jax.jit(run)(dY, *arguments)))
