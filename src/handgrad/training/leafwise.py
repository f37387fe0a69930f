"""An optax transformation as one small program for each parameter, from the jaxpr of its update.

optax updates all parameters in one call. The jaxpr of that call tells which outputs depend on which inputs: where a new
parameter depends on its own gradient and no other, the equations behind it are a program that can run as soon as that
gradient is computed. Where each of them is elementwise, it can run on a part of the parameter, as one layer of a stack.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import optax
from jax.extend import core
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from handgrad.checks import InputError, path_name
from handgrad.training.equations import (
    NOTHING,
    Atom,
    Equation,
    Needs,
    Program,
    Values,
    Variable,
    is_fill,
    need,
    shape_of,
    together,
    traced,
)
from handgrad.training.zeros import keeps_untouched

# Elementwise primitives: each element of the output depends on that element of the inputs, and on scalars.
ELEMENTWISE = """abs add add_any and atan2 cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv erfc
exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow
reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor"""


class Leafwise(NamedTuple):
    """One step of an optimizer, taken apart.

    Attributes:
      program: (n gradients, n parameters, the state's leaves) -> (n new parameters, the state's new leaves).
      owners: for each leaf of the state the number of its parameter, or None for what all parameters share, as
        Adam's count.
      names: the parameters' paths.
    """

    program: Program
    owners: tuple[int | None, ...]
    names: tuple[str, ...]

    def states_of(self, i: int | None) -> list[int]:
        """The leaves of the state that belong to parameter i, or with None those that all parameters share."""
        return [j for j, owner in enumerate(self.owners) if owner == i]

    def common(self, states: list[Array]) -> tuple[Values, list[Array]]:
        """What all parameters share, computed once: counts, learning rates, keys.

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
            # Arrays as large as a parameter are made where they are used; they would stay live until then.
            worth_keeping = place in needed or all(v.shape == () for v in equation.outvars)
            if worth_keeping and all(isinstance(a, core.Literal) or a in values for a in equation.invars):
                _run(equation, values, lambda atom: _read(atom, values))
        return values, [_read(atom, values) for atom in outputs]

    def update(
        self, common: Values, i: int, grad: Array, param: Array, states: list[Array], layer: Array | None = None
    ) -> tuple[Array, list[Array]]:
        """Parameter i and its leaves of the state, one step on.

        Args:
          common: from `common`.
          grad, param, states: parameter i's; `states` in the order of `states_of(i)`. Or a part of each: one layer of
            a stack that `check_elementwise` has passed, or rows of one that `keeps_untouched`.
          layer: the layer's number.
        """
        inputs, outputs = self._inputs(i), self._outputs(i)
        whole, part = inputs[0].shape, param.shape
        own: Values = dict(zip(inputs, [grad, param, *states], strict=True))
        if layer is None and part != whole:
            common = {var: value for var, value in common.items() if var.shape == ()}

        def read(atom: Atom) -> Array:
            if isinstance(atom, core.Literal) or atom in own:
                return _read(atom, own)
            value = common[atom]
            in_stack = layer is not None and atom.shape == whole
            return jax.lax.dynamic_index_in_dim(value, layer, keepdims=False) if in_stack else value

        for place in sorted(self.program.behind(outputs, {*common, *own})):
            equation = self.program.eqns[place]
            if part != whole and is_fill(equation):
                own[equation.outvars[0]] = jax.lax.broadcast(read(equation.invars[0]), part)
            else:
                _run(equation, own, read)
        new_param, *new_states = map(read, outputs)
        return new_param, new_states

    def check_elementwise(self, where: str, i: int) -> None:
        """Raise an InputError unless the update of parameter i is elementwise: a stack is updated layer by layer."""
        shape = self._inputs(i)[0].shape
        found = [f"a state of shape {var.shape}" for var in self._inputs(i) if var.shape != shape]
        for place in sorted(self.program.behind(self._outputs(i))):
            equation = self.program.eqns[place]
            if not (_is_scalar(equation) or is_fill(equation) or equation.primitive.name in ELEMENTWISE.split()):
                found.append(f"{equation.primitive.name}{equation.origin}")
        if found:
            raise InputError(
                f"{where}: optimizer must work element by element on {self.names[i]}, whose {shape[0]} layers are "
                f"updated one at a time, got one with {found[0]}"
            )

    def keeps_untouched(self, i: int, dtype: DTypeLike) -> bool:
        """Whether the elements of parameter i, of this dtype, whose gradient is 0 stay as they are: those can be left
        out of `update`."""
        grad, param, *states = self._inputs(i)
        return not states and keeps_untouched(self.program, grad, param, self._outputs(i)[0], dtype)

    def _inputs(self, i: int) -> list[Variable]:
        n, invars = len(self.names), self.program.invars
        return [invars[i], invars[n + i], *(invars[2 * n + j] for j in self.states_of(i))]

    def _outputs(self, i: int) -> list[Atom]:
        n, outvars = len(self.names), self.program.outvars
        return [outvars[i], *(outvars[n + j] for j in self.states_of(i))]


def leafwise(
    where: str,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    opt_state: optax.OptState,
    stacks: Sequence[int] = (),
) -> Leafwise:
    """Split an optimizer's step by parameter; nothing is computed.

    A branch that several parameters or a stack go through, as that of MultiSteps on its counter, is opened.

    Args:
      where: the function that errors name.
      stacks: the numbers of the parameters that are updated one layer at a time.
    Raises:
      InputError: a new parameter, or a leaf of the state, depends on the gradients of several parameters; the
        optimizer takes more than gradients, parameters and its state, as a line search does; the structure of its state
        changes.
    """
    names = tuple(path_name(path) for path, _ in jax.tree.leaves_with_path(params))
    n = len(names)

    def step(grads: PyTree, params: PyTree, opt_state: optax.OptState) -> PyTree:
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
    """For each variable the parameters that it depends on.

    A leaf of the state belongs to the parameters that its next value depends on: iterated to the fixed point.
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
    """The first equation on the way to output i that depends on more than one parameter, as the message names it."""
    for place in sorted(program.behind([program.outvars[i]])):
        equation = program.eqns[place]
        if len(together(equation, needs)) > 1 and all(len(need(atom, needs)) < 2 for atom in equation.invars):
            is_clip = "clip_by_global_norm" in equation.origin
            hint = "; update itself clips the whole gradient, by clip_global_norm" if is_clip else ""
            return f": they meet{equation.origin} ({equation.primitive.name}){hint}"
    return ""


def _run(equation: Equation, values: Values, read: Callable[[Atom], Array]) -> None:
    """Add one equation's outputs to the values."""
    options = equation.primitive.get_bind_params(equation.params)
    found = equation.primitive.bind(*map(read, equation.invars), **options)
    values |= dict(zip(equation.outvars, found if equation.primitive.multiple_results else [found], strict=True))


def _read(atom: Atom, values: Values) -> Array:
    return atom.val if isinstance(atom, core.Literal) else values[atom]


def _is_scalar(equation: Equation) -> bool:
    """Scalars from scalars: the same for every layer."""
    return all(shape_of(atom) == () for atom in (*equation.invars, *equation.outvars))
