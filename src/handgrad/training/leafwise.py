"""An optax transformation as one small program for each parameter, from the jaxpr of its update.

optax updates all parameters in one call. Which of its outputs need which of its inputs stands in the jaxpr of that
call: where a new parameter needs that parameter's gradient and no other's, the equations behind it are a program of
their own, which can run as soon as that one gradient is there. And where each of them works element by element, that
program can run on a part of the parameter, as one layer of a stack.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax
from jax.extend import core

from handgrad.checks import InputError, path_name
from handgrad.training.equations import NOTHING, Equation, Needs, Program, Values, need, together, traced

Array = jax.Array

# Primitives of which each element needs that element of the arrays that go in, and numbers.
ELEMENTWISE = """abs add add_any and atan2 cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv erfc
exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow
reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor"""


class Leafwise(NamedTuple):
    """One step of an optimizer, taken apart.

    Attributes:
      program: (n gradients, n parameters, the state's leaves) -> (n new parameters, the state's new leaves).
      owners: for each leaf of the state the number of the parameter that it belongs to, or None for what all have in
        common, as Adam's count.
      names: the parameters' paths.
    """

    program: Program
    owners: tuple[int | None, ...]
    names: tuple[str, ...]

    def states_of(self, i: int | None) -> list[int]:
        """Which leaves of the state are parameter i's, or everyone's."""
        return [j for j, owner in enumerate(self.owners) if owner == i]

    def common(self, states: list[Array]) -> tuple[Values, list[Array]]:
        """What all parameters have in common, computed once: counts, learning rates, keys.

        Args:
          states: all leaves of the state.
        Returns:
          values for `update`; the new leaves of `states_of(None)`.
        """
        program, n, of_all = self.program, len(self.names), self.states_of(None)
        values: Values = program.consts | {program.invars[2 * n + j]: states[j] for j in of_all}
        outputs = [program.outvars[n + j] for j in of_all]
        needed = program.behind(outputs)
        for place, equation in enumerate(program.eqns):
            # Arrays as large as a parameter are made where they are used; they would only stand about.
            worth_keeping = place in needed or all(v.aval.shape == () for v in equation.outvars)
            if worth_keeping and all(isinstance(a, core.Literal) or a in values for a in equation.invars):
                _run(equation, values, lambda atom: _read(atom, values))
        return values, [_read(atom, values) for atom in outputs]

    def update(
        self, common: Values, i: int, grad: Array, param: Array, states: list[Array], layer: Array | None = None
    ) -> tuple[Array, list[Array]]:
        """Parameter i and its leaves of the state, one step on.

        Args:
          common: from `common`.
          grad, param, states: parameter i's; `states` in the order of `states_of(i)`.
          layer: where these are one layer of a stack that `check_elementwise` has passed, its number.
        """
        inputs, outputs = self._inputs(i), self._outputs(i)
        stack = None if layer is None else inputs[0].aval.shape
        own: Values = dict(zip(inputs, [grad, param, *states], strict=True))

        def read(atom: Any) -> Any:
            if isinstance(atom, core.Literal) or atom in own:
                return _read(atom, own)
            value = common[atom]
            in_stack = stack is not None and atom.aval.shape == stack
            return jax.lax.dynamic_index_in_dim(value, layer, keepdims=False) if in_stack else value

        for place in sorted(self.program.behind(outputs, {*common, *own})):
            _run(self.program.eqns[place], own, read, stack)
        new_param, *new_states = map(read, outputs)
        return new_param, new_states

    def check_elementwise(self, where: str, i: int) -> None:
        """A stack is updated one layer at a time, so what updates it must not look across its layers.

        Raises:
          InputError: the update of parameter i is not element by element.
        """
        shape = self._inputs(i)[0].aval.shape
        found = [f"a state of shape {atom.aval.shape}" for atom in self._inputs(i) if atom.aval.shape != shape]
        for place in sorted(self.program.behind(self._outputs(i))):
            equation = self.program.eqns[place]
            if not (_is_scalar(equation) or _is_fill(equation) or equation.primitive.name in ELEMENTWISE.split()):
                found.append(f"{equation.primitive.name}{equation.origin}")
        if found:
            raise InputError(
                f"{where}: optimizer must work element by element on {self.names[i]}, whose {shape[0]} layers are "
                f"updated one at a time, got one with {found[0]}"
            )

    def _inputs(self, i: int) -> list[Any]:
        n, invars = len(self.names), self.program.invars
        return [invars[i], invars[n + i], *(invars[2 * n + j] for j in self.states_of(i))]

    def _outputs(self, i: int) -> list[Any]:
        n, outvars = len(self.names), self.program.outvars
        return [outvars[i], *(outvars[n + j] for j in self.states_of(i))]


def leafwise(
    where: str, optimizer: optax.GradientTransformation, params: Any, opt_state: Any, stacks: Sequence[int] = ()
) -> Leafwise:
    """Take an optimizer's step apart; nothing is computed.

    A branch that several parameters or a stack go through, as that of MultiSteps on its counter, is opened.

    Args:
      where: the function that errors name.
      optimizer, params, opt_state: as for optax.
      stacks: the numbers of the parameters that are updated one layer at a time.
    Raises:
      InputError: a new parameter, or a leaf of the state, needs the gradients of several parameters; the optimizer
        needs more than gradients, parameters and its state, as a line search needs the objective; its state changes
        its structure.
    """
    names = tuple(path_name(path) for path, _ in jax.tree.leaves_with_path(params))
    n = len(names)

    def step(grads: Any, params: Any, opt_state: Any) -> Any:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    try:
        program = traced(step, params, params, opt_state)
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where}: optimizer.update(gradients, state, parameters) must run, got {said}") from error
    states, new_states = len(program.invars) - 2 * n, len(program.outvars) - n
    if states != new_states:
        raise InputError(
            f"{where}: optimizer must keep its state's structure, got {states} leaves before and {new_states} after"
        )

    def must_open(equation: Equation) -> bool:
        owners = together(equation, needs)
        is_pure_branch = equation.primitive.name == "cond" and not equation.effects
        return is_pure_branch and (len(owners) > 1 or not owners.isdisjoint(stacks))

    needs = _owners(program, n)
    while branches := {place for place, equation in enumerate(program.eqns) if must_open(equation)}:
        program = program.opened(branches)
        needs = _owners(program, n)
    of_outputs = [need(atom, needs) for atom in program.outvars]
    for i, owners in enumerate(of_outputs):
        if len(owners) > 1:
            others = owners - {i} if i < n else owners
            raise InputError(
                f"{where}: optimizer must update each parameter from its own gradient and state, got one that needs "
                f"{names[min(others)]} too for {names[i] if i < n else 'its state'}{_meeting(program, needs, i)}"
            )
    return Leafwise(program, tuple(next(iter(owners), None) for owners in of_outputs[n:]), names)


def _owners(program: Program, n: int) -> Needs:
    """Whose gradients, parameters and states each variable needs.

    A leaf of the state belongs to whom its next value belongs to: round by round, until nothing new is found.
    """
    of_params = [frozenset([i]) for i in range(n)]
    of_states = [NOTHING] * (len(program.invars) - 2 * n)
    while True:
        needs = program.needs([*of_params, *of_params, *of_states])
        found = [old | need(atom, needs) for old, atom in zip(of_states, program.outvars[n:], strict=True)]
        if found == of_states:
            return needs
        of_states = found


def _meeting(program: Program, needs: Needs, i: int) -> str:
    """Where several parameters come together on the way to output i: at the first equation that needs more than one."""
    for place in sorted(program.behind([program.outvars[i]])):
        equation = program.eqns[place]
        if len(together(equation, needs)) > 1 and all(len(need(atom, needs)) < 2 for atom in equation.invars):
            is_clip = "clip_by_global_norm" in equation.origin
            hint = "; update itself clips the whole gradient, by clip_global_norm" if is_clip else ""
            return f": they meet{equation.origin} ({equation.primitive.name}){hint}"
    return ""


def _run(equation: Equation, values: Values, read: Callable[[Any], Any], stack: tuple[int, ...] | None = None) -> None:
    """One equation, its outputs put among the values; with `stack` the shape of the whole, for one layer of it."""
    if stack is not None and _is_fill(equation):
        values[equation.outvars[0]] = jax.lax.broadcast(read(equation.invars[0]), stack[1:])
        return
    options = equation.primitive.get_bind_params(equation.params)
    found = equation.primitive.bind(*map(read, equation.invars), **options)
    values |= dict(zip(equation.outvars, found if equation.primitive.multiple_results else [found], strict=True))


def _read(atom: Any, values: Values) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]


def _is_scalar(equation: Equation) -> bool:
    """Numbers from numbers: the same for every layer."""
    return all(atom.aval.shape == () for atom in (*equation.invars, *equation.outvars))


def _is_fill(equation: Equation) -> bool:
    """One number everywhere."""
    return equation.primitive.name == "broadcast_in_dim" and equation.invars[0].aval.shape == ()
