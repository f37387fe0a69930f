"""Every rule with its batch on several devices, under Explicit axes, is the rule on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_programs import by_hand, drawn
from devices.on_devices import mesh_of, put
from helpers import assert_same

import handgrad as hg
from handgrad import rules
from handgrad.cases import CASES, FAMILIES, first_rows
from handgrad.factors import is_factor

# The rows of a family with one batch are one program; LLVM's optimizations would take most of the time to compile it.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def batch_of(arguments) -> int | None:
    return next((np.shape(a)[0] for a in arguments if a is not None and np.shape(a)), None)


def groups():
    """The rows whose batch the eight devices can take, one for each choice of a rule's options: (family, batch) ->
    rows. The first of each rule by default, the others with what is slow."""
    programs = list({(case.op, repr(case.options)): case for case in reversed(CASES)}.values())
    first, found = set(first_rows().values()), {}
    for family, module in FAMILIES.items():
        for case in (case for case in module.CASES if case in programs):
            batch = batch_of(case.arguments())
            if batch is not None and 1 < batch <= 8:
                found.setdefault((family, batch, case not in first), []).append(case)
    return [
        pytest.param(rows, batch, id=f"{family}-{batch}", marks=[pytest.mark.slow] if slow else [])
        for (family, batch, slow), rows in found.items()
    ]


def are_parameters(case, dY, arguments) -> list[bool]:
    """Which arguments are parameters: those whose cotangent is a factor."""
    forward, backward = case.settled

    def cotangents(dY, *arguments):
        return backward(forward(*arguments)[1], dY)

    found = jax.eval_shape(cotangents, dY, *arguments)
    return [is_factor(c) for _, c in zip(arguments, found, strict=False)]


@pytest.mark.parametrize(("rows", "batch"), groups())
def test_rules_on_several_devices(rows, batch):
    given = {str(case): drawn(case) for case in rows}
    mesh = mesh_of("explicit", batch)

    def run(given):
        return {str(case): by_hand(case)(*given[str(case)]) for case in rows}

    def place(a, whole=False):
        return a if a is None else put(mesh, a, *(["data"] if a.shape[:1] == (batch,) and not whole else []))

    def placed(case):
        dY, *arguments = drawn(case)
        whole = are_parameters(case, dY, arguments)
        return jax.tree.map(place, dY), *(place(a, w) for a, w in zip(arguments, whole, strict=True))

    expected = jax.device_get(jit(run)(given))
    with jax.set_mesh(mesh):
        found = jax.device_get(jit(run)({str(case): placed(case) for case in rows}))
    for name in expected:
        assert_same(found[name], expected[name])


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
