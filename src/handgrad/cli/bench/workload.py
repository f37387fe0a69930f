"""A workload: one computation by hand, as a program at given sizes, and the names of who else computes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from handgrad.backprop import materialize, objective, value_and_grad
from handgrad.layers import Layer, Loss
from handgrad.rule import Rule

Function = Callable[..., PyTree]


class Program(NamedTuple):
    """What a workload computes, at its sizes.

    Attributes:
      hand: by hand-written gradients.
      autodiff: by jax.grad of our own forward pass; None where nobody would.
      arguments: of both; float32 arrays, and integers.
      donate: which of them each call gives away, its first result taking the first one's place: a training step's.
    """

    hand: Function
    autodiff: Function | None
    arguments: tuple[PyTree, ...]
    donate: tuple[int, ...] = ()


@dataclass(frozen=True)
class Workload:
    """One entry of the registry.

    Attributes:
      name: as the field calls it.
      make: the program at these sizes.
      sizes: the keyword arguments of `make`; the baselines' `ways` get them too.
      tiny: sizes in place of these, for tests.
      baselines: independent programs of the same numbers, experiments/baselines/<name>.py.
      float64: how far by hand and the first baseline may be apart in float64.
      trade: whether by hand trades time for memory here; it is measured against baselines that do so too, or that don't
        either. None, where it saves both, is against all.
      heavy: it takes minutes and gigabytes, and runs last.
    """

    name: str
    make: Callable[..., Program]
    sizes: Mapping[str, Any]
    tiny: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    float64: float = 1e-9
    trade: bool | None = False
    heavy: bool = False


class Way(NamedTuple):
    """One of the programs that compute a workload.

    Attributes:
      function: of the arguments; NumPy arrays in, any framework's arrays out.
      arguments: this program's own, made from those by hand.
      alike: the results by hand, under this program's names and in its layout.
      compiled: by XLA; False for PyTorch.
      trade: it trades time for memory.
    """

    function: Function
    arguments: tuple[PyTree, ...]
    alike: Callable[[PyTree], PyTree]
    compiled: bool = True
    trade: bool = False


HAND, AUTODIFF = "hand", "jax.grad, our forward"


def ways_of(workload: Workload, program: Program, modules: Mapping[str, ModuleType]) -> dict[str, Way]:
    """By hand first, the independent baselines, jax.grad of our own forward pass last."""

    ways = {HAND: Way(program.hand, program.arguments, _same)}
    for name, module in modules.items():
        arguments, alike = _translated(module, program.arguments)
        for way, function in module.ways(**workload.sizes).items():
            trade = "checkpoint" in way
            ways[way] = Way(function, arguments, alike, compiled=not name.endswith("_torch"), trade=trade)
    if program.autodiff is not None:
        ways[AUTODIFF] = Way(program.autodiff, program.arguments, _same)
    return ways


def _same(results: PyTree) -> PyTree:
    return results


def _translated(module: ModuleType, theirs: tuple[PyTree, ...]) -> tuple[tuple[PyTree, ...], Function]:
    """The arguments as a module of baselines takes them, and what makes results by hand its own."""
    parameters = getattr(module, "parameters", None)
    arguments = module.arguments(*theirs) if hasattr(module, "arguments") else theirs
    if parameters is None:
        return arguments, getattr(module, "results", _same)
    if arguments is theirs:
        arguments = parameters(theirs[0]), *theirs[1:]
    return arguments, lambda value_and_grads: (value_and_grads[0], parameters(value_and_grads[1]))


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def integers(seed: int, below: int, *shape: int) -> np.ndarray:
    """Uniform int32 numbers, labels or ids."""
    return np.random.default_rng(seed).integers(0, below, shape, np.int32)


def started(model: Layer, x: PyTree) -> PyTree:
    """Float32 parameters, moved a little from where they start, so that no shift is zero and no scale one."""
    params = jax.jit(model.init)(jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: np.asarray(a) + 0.02 * rng.standard_normal(a.shape, np.float32), params)


def of_model(model: Layer, loss: Loss, x: PyTree, target: PyTree) -> Program:
    """Value and gradient of a model."""
    autodiff = jax.value_and_grad(objective(model, loss))
    return Program(value_and_grad(model, loss), autodiff, (started(model, x), x, target))


def of_rule(rule: Rule[..., Any], *arguments: PyTree) -> Program:
    """A rule's result and the cotangents of its arguments; the last of `arguments` is the result's cotangent."""

    def hand(*arguments: PyTree) -> tuple[PyTree, ...]:
        Y, residuals = rule.forward(*arguments[:-1])
        cotangents = materialize(rule.backward(residuals, arguments[-1]))
        return Y, tuple(d for d in cotangents if d is not None)

    def autodiff(*arguments: PyTree) -> tuple[PyTree, ...]:
        Y, pull = jax.vjp(lambda *primals: rule.forward(*primals)[0], *arguments[:-1])
        return Y, tuple(d for d in jax.tree.leaves(pull(arguments[-1])) if d.dtype != jax.dtypes.float0)

    return Program(hand, autodiff, arguments)
