"""Every rule with its batch on several devices, under Explicit axes, is the rule on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices.on_devices import mesh_of, put
from helpers import assert_same
from rules.test_contracts import by_hand, drawn, first_of_each, rule_of

import handgrad as hg
from handgrad import rules
from handgrad.factors import is_factor

# A row whose batch the eight devices can take; the others differ in numbers, not in programs.
ROWS = [case for (case,) in first_of_each(lambda case: (case.op, repr(case.options)))]
FIRST = {case for (case,) in first_of_each(lambda case: case.op)}


def batch_of(arguments) -> int:
    return next(a.shape[0] for a in arguments if a is not None and a.shape)


def parameters_of(case, dY, arguments) -> list[bool]:
    """Which arguments are parameters: those whose cotangent is a factor."""
    forward, backward = rule_of(case)

    def cotangents(dY, *arguments):
        return backward(forward(*arguments)[1], dY)

    found = jax.eval_shape(cotangents, dY, *arguments)
    return [is_factor(c) for _, c in zip(arguments, found, strict=False)]


def rows(test):
    """Every row that fits; one of each rule by default, the others with what is slow."""
    marked = []
    for case in ROWS:
        _, *arguments = drawn(case)
        if any(a is not None and a.shape for a in arguments) and 1 < batch_of(arguments) <= 8:
            marked.append(pytest.param(case, id=str(case), marks=[] if case in FIRST else [pytest.mark.slow]))
    return pytest.mark.parametrize("case", marked)(test)


@rows
def test_a_rule_on_several_devices(case):
    dY, *arguments = drawn(case)
    batch, run = batch_of(arguments), by_hand(case)
    whole = parameters_of(case, dY, arguments)
    expected = jax.device_get(jax.jit(run)(dY, *arguments))

    mesh = mesh_of("explicit", batch)

    def place(a, whole=False):
        return a if a is None else put(mesh, a, *(["data"] if a.shape[:1] == (batch,) and not whole else []))

    placed = [place(a, w) for a, w in zip(arguments, whole, strict=True)]
    with jax.set_mesh(mesh):
        assert_same(jax.device_get(jax.jit(run)(jax.tree.map(place, dY), *placed)), expected)


@pytest.mark.parametrize("op", ["rnn", "lstm"])
def test_no_steps(op):
    """Sequences of no step, whose batch is sharded: the state as it came, and gradients of zeros."""
    mesh, gates, states = mesh_of("explicit", 4), *{"rnn": (1, 1), "lstm": (4, 2)}[op]
    X = put(mesh, np.ones((4, 0, 3)), "data")
    W, U, b = (put(mesh, np.ones(shape)) for shape in ((3, 2 * gates), (2, 2 * gates), (2 * gates,)))
    H0 = [put(mesh, np.ones((4, 2)), "data")] * states

    @jax.jit
    def run(*arguments):
        Y, residuals = getattr(rules, op).forward(*arguments)
        return hg.materialize(getattr(rules, op).backward(residuals, jax.tree.map(jnp.ones_like, Y)))

    with jax.set_mesh(mesh):
        dX, dW, dU, db, *dH0, _ = run(X, W, U, b, *H0)
    assert dX.shape == X.shape
    assert not any(np.any(d) for d in (dW, dU, db))
    assert all(np.all(np.asarray(d) == 1) for d in dH0)
