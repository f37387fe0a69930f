"""An optax transformation taken apart: what it does to one parameter, found in its program.

`optimizer.update` is traced once, for all parameters. An update that needs the gradient of one parameter alone is a
part of that program, and so is the new state that comes with it; a part can run by itself, when its gradient is
there. Nothing is known about any transformation by name: the program is what counts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import numpy as np
import optax
from jax.extend import core

from handgrad.shapes import InputError, describe

WHERE = "update"

# What treats each number by itself.
NAMES = """
    abs add add_any and cbrt ceil clamp convert_element_type copy cos div eq erf exp exp2 expm1 floor ge gt integer_pow
    is_finite le log log1p logistic lt max min mul ne neg not or pow reduce_precision rem round rsqrt select_n sign sin
    sqrt square sub tanh xor
"""
ELEMENTWISE = frozenset(NAMES.split())
JIT = ("jit", "pjit")
REDUCTIONS = frozenset(["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])


class PerParameter:
    """The program of `optimizer.update`, in one part for each parameter and one for what needs no gradient.

    Attributes:
      state, params: what came in, flat.
      state_of: for each parameter, the places in the flat state of what is computed from its gradient.
      gradient_free: the places in the flat state of the rest, a step count for example.
    """

    def __init__(self, optimizer: optax.GradientTransformation, opt_state: Any, params: Any, where: str = WHERE):
        """Trace the optimizer.

        Raises:
          InputError: an update, or a new state, that needs the gradients of several parameters.
        """
        self._optimizer, self._where = optimizer, where
        paths, self._structure = jax.tree_util.tree_flatten_with_path(params)
        self._paths = [jax.tree_util.keystr(path) or "params" for path, _ in paths]
        self.params = [leaf for _, leaf in paths]
        self.state, self._state_structure = jax.tree.flatten(opt_state)
        self._program = self._traced(self.params, self.state)
        needed = _gradients_needed(self._program.jaxpr, len(paths))
        for i, gradients in enumerate(needed[: len(paths)]):
            self._check(gradients | {i}, i, "the update")
        for gradients in needed[len(paths) :]:
            self._check(gradients, min(gradients, default=0), "the new state")
        owners = [min(gradients, default=None) for gradients in needed[len(paths) :]]
        self.state_of = [[at for at, owner in enumerate(owners) if owner == i] for i in range(len(paths))]
        self.gradient_free = [at for at, owner in enumerate(owners) if owner is None]

    def rest(self) -> list[Any]:
        """The new values of `gradient_free`."""
        return self._part(self._program, self.gradient_free, None)(self.state, self.params, None)

    def of(self, i: int) -> Any:
        """(state, params, gradient of parameter i) -> [its update, *the new values of state_of[i]]."""
        return self._part(self._program, self.state_of[i], i)

    def of_one_layer(self, i: int) -> tuple[Any, list[Any]]:
        """The same of a parameter that is a stack of layers, for one of them: its axis of layers has length 1.

        Returns:
          (state, params, gradient) -> [update, *new state], and for each place in the flat state whether a stack is
          there as well, of which the part wants one layer.
        Raises:
          InputError: one layer's update is not a layer of the stack's update.
        """
        stack = self.params[i]
        layers = len(stack)
        params = [*self.params]
        params[i] = jax.ShapeDtypeStruct((1, *stack.shape[1:]), stack.dtype)
        structure = jax.tree.unflatten
        whole, cut = (
            jax.tree.leaves(jax.eval_shape(self._optimizer.init, structure(self._structure, leaves)))
            for leaves in (self.params, params)
        )
        is_stack = [_kind(one.shape, two.shape, layers) for one, two in zip(whole, cut, strict=True)]
        if None in is_stack or len(is_stack) != len(self.state):
            self._refuse_stack(i, "its state is no stack of states")
        state = [
            jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype) if stacked else leaf
            for leaf, stacked in zip(self.state, is_stack, strict=True)
        ]
        program = self._traced(params, state)
        kept = [i, *(len(params) + at for at in self.state_of[i])]
        one, two = (_slice(closed.jaxpr, kept) for closed in (self._program, program))
        problem = _mixes_layers(one, two, layers)
        found = [_kind(a.aval.shape, b.aval.shape, layers) for a, b in zip(one.outvars, two.outvars, strict=True)]
        if problem or not all(found) or not all(is_stack[at] for at in self.state_of[i]):
            self._refuse_stack(i, problem or "its state is no stack of states")
        return self._part(program, self.state_of[i], i), is_stack

    def unflatten_state(self, leaves: Sequence[Any]) -> Any:
        """The flat state as the optimizer has it."""
        return jax.tree.unflatten(self._state_structure, leaves)

    def _traced(self, params: Sequence[Any], state: Sequence[Any]) -> Any:
        """The program: (gradients, state, params) -> (updates, new state), all of them flat."""

        def update(grads, state, params):
            grads, params = (jax.tree.unflatten(self._structure, leaves) for leaves in (grads, params))
            updates, new_state = self._optimizer.update(grads, self.unflatten_state(state), params)
            if jax.tree.structure(new_state) != self._state_structure:
                raise InputError(f"{self._where}: the optimizer must keep its state's structure")
            return jax.tree.leaves(updates), jax.tree.leaves(new_state)

        return _inlined(jax.make_jaxpr(update)(list(params), list(state), list(params)))

    def _part(self, program: Any, state_places: Sequence[int], i: int | None) -> Any:
        """What computes parameter i's update and these new states: (state, params, gradient) -> their list."""
        count = len(self.params)
        jaxpr = _slice(program.jaxpr, [*([] if i is None else [i]), *(count + at for at in state_places)])

        def run(state, params, gradient):
            inputs = [*(gradient if k == i else None for k in range(count)), *state, *params]
            return jax.core.eval_jaxpr(jaxpr, program.consts, *inputs)

        return run

    def _check(self, gradients: set[int], i: int, what: str) -> None:
        others = sorted(gradients - {i})
        if others:
            raise InputError(
                f"{self._where}: optimizer must treat each parameter by itself, got one where {what} of "
                f"{self._paths[i]} needs the gradient of {self._paths[others[0]]}; clip_global_norm clips here"
            )

    def _refuse_stack(self, i: int, why: str) -> None:
        raise InputError(
            f"{self._where}: optimizer must treat each layer of the stack {self._paths[i]}, "
            f"{describe(self.params[i])}, by itself, got one that doesn't: {why}"
        )


def _inlined(program: Any) -> Any:
    """The same program without jit inside: an optimiser may have compiled what it does to all parameters at once."""

    def run(jaxpr, consts, *inputs):
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))
        for equation in jaxpr.eqns:
            given = [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in equation.invars]
            if equation.primitive.name in JIT:
                inner = equation.params["jaxpr"]
                found = run(inner.jaxpr, inner.consts, *given)
            else:
                found = equation.primitive.bind(*given, **equation.primitive.get_bind_params(equation.params))
                found = found if equation.primitive.multiple_results else [found]
            values |= zip(equation.outvars, found, strict=True)
        return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]

    return jax.make_jaxpr(lambda *inputs: run(program.jaxpr, program.consts, *inputs))(*program.in_avals)


def _gradients_needed(jaxpr: Any, count: int) -> list[set[int]]:
    """For each output the gradients, the first `count` inputs, that it is computed from. Each equation counts as one
    whole: what it returns needs all that it is given."""
    needed: dict[Any, frozenset[int]] = {var: frozenset([i]) for i, var in enumerate(jaxpr.invars[:count])}

    def of(atoms: Sequence[Any]) -> frozenset[int]:
        found = (needed.get(atom, frozenset()) for atom in atoms if not isinstance(atom, core.Literal))
        return frozenset().union(*found)

    for equation in jaxpr.eqns:
        gradients = of(equation.invars)
        needed |= dict.fromkeys(equation.outvars, gradients)
    return [set(of([atom])) for atom in jaxpr.outvars]


def _slice(jaxpr: Any, outputs: Sequence[int]) -> Any:
    """The equations that these outputs need."""
    outvars = [jaxpr.outvars[at] for at in outputs]
    needed = {var for var in outvars if not isinstance(var, core.Literal)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            equations.append(equation)
            needed.update(atom for atom in equation.invars if not isinstance(atom, core.Literal))
    return jaxpr.replace(eqns=equations[::-1], outvars=outvars)


def _kind(whole: tuple[int, ...], cut: tuple[int, ...], layers: int) -> bool | None:
    """Whether an array of two programs, for all layers and for one, is a stack; None: it is neither that nor the
    same in both."""
    if whole == cut:
        return False
    return True if whole[1:] == cut[1:] and whole[:1] == (layers,) and cut[:1] == (1,) else None


def _mixes_layers(whole: Any, cut: Any, layers: int) -> str:
    """Why one layer of `whole` is not what `cut` computes; "" where it is.

    Both programs go step by step. An array that is the same in both has nothing to do with the layers. A stack may
    only come from stacks and from what is spread over all layers, by steps that leave the axis of layers alone.
    """
    if len(whole.eqns) != len(cut.eqns):
        return "it does something else with one layer"
    for one, two in zip(whole.eqns, cut.eqns, strict=True):
        if one.primitive.name != two.primitive.name:
            return "it does something else with one layer"
        into, out = (
            [
                _kind(a.aval.shape, b.aval.shape, layers)
                for a, b in zip(getattr(one, side), getattr(two, side), strict=True)
            ]
            for side in ("invars", "outvars")
        )
        literals = zip(one.invars, two.invars, strict=True)
        if not all(_same_literal(a, b) for a, b in literals):
            return f"a number in '{one.primitive.name}' depends on how many layers there are"
        if None in into + out or not _keeps_layers(one, two, into, out, layers):
            return f"'{one.primitive.name}' mixes layers"
    return ""


def _keeps_layers(one: Any, two: Any, into: list[Any], out: list[Any], layers: int) -> bool:
    """One step of `_mixes_layers`."""
    name = one.primitive.name
    if not any(into + out):
        return str(one.params) == str(two.params)
    if not all(out):
        return False
    if name in ELEMENTWISE:
        return all(stacked or not atom.aval.shape for stacked, atom in zip(into, one.invars, strict=True))
    if name == "broadcast_in_dim":
        places = one.params["broadcast_dimensions"]
        return places == two.params["broadcast_dimensions"] and (places[:1] == (0,)) == into[0]
    return name in REDUCTIONS and all(into) and 0 not in one.params["axes"] and one.params["axes"] == two.params["axes"]


def _same_literal(one: Any, two: Any) -> bool:
    if not isinstance(one, core.Literal):
        return not isinstance(two, core.Literal)
    return isinstance(two, core.Literal) and bool(np.array_equal(one.val, two.val, equal_nan=True))
