"""An optax transformation as one small program for each parameter, from the jaxpr of its update.

optax updates all parameters in one call. Which of its outputs need which of its inputs stands in the jaxpr of that
call: where a new parameter needs that parameter's gradient and no other's, the equations behind it are a program of
their own, which can run as soon as that one gradient is there. And where each of them works element by element, that
program can run on a part of the parameter, as one layer of a stack.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.extend import core

from handgrad.shapes import InputError, path_name

Array = jax.Array
Values = dict[Any, Any]

# Primitives of which each element needs that element of the arrays that go in, and numbers.
ELEMENTWISE = """abs add add_any and atan2 cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv erfc
exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow
reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor"""


class Leafwise(NamedTuple):
    """One step of an optimiser, taken apart.

    Attributes:
      jaxpr: (n gradients, n parameters, the state's leaves) -> (n new parameters, the state's new leaves).
      owners: for each leaf of the state the number of the parameter that it belongs to, or None for what all have in
        common, as Adam's count.
      names: the parameters' paths.
    """

    jaxpr: core.ClosedJaxpr
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
        jaxpr, n, of_all = self.jaxpr.jaxpr, len(self.names), self.states_of(None)
        values: Values = dict(zip(jaxpr.constvars, self.jaxpr.consts, strict=True))
        values |= {jaxpr.invars[2 * n + j]: states[j] for j in of_all}
        outputs = [jaxpr.outvars[n + j] for j in of_all]
        needed = _behind(jaxpr, outputs)
        for place, equation in enumerate(jaxpr.eqns):
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
        jaxpr = self.jaxpr.jaxpr
        inputs, outputs = self._inputs(i), self._outputs(i)
        stack = None if layer is None else inputs[0].aval.shape
        own: Values = dict(zip(inputs, [grad, param, *states], strict=True))

        def read(atom: Any) -> Any:
            if isinstance(atom, core.Literal) or atom in own:
                return _read(atom, own)
            value = common[atom]
            in_stack = stack is not None and atom.aval.shape == stack
            return jax.lax.dynamic_index_in_dim(value, layer, keepdims=False) if in_stack else value

        for place in sorted(_behind(jaxpr, outputs, {*common, *own})):
            _run(jaxpr.eqns[place], own, read, stack)
        new_param, *new_states = map(read, outputs)
        return new_param, new_states

    def check_elementwise(self, where: str, i: int) -> None:
        """A stack is updated one layer at a time, so what updates it must not look across its layers.

        Raises:
          InputError: the update of parameter i is not element by element.
        """
        jaxpr, shape = self.jaxpr.jaxpr, self._inputs(i)[0].aval.shape
        found = [f"a state of shape {atom.aval.shape}" for atom in self._inputs(i) if atom.aval.shape != shape]
        for place in sorted(_behind(jaxpr, self._outputs(i))):
            equation = jaxpr.eqns[place]
            if not (_is_scalar(equation) or _is_fill(equation) or equation.primitive.name in ELEMENTWISE.split()):
                found.append(equation.primitive.name)
        if found:
            raise InputError(
                f"{where}: optimizer must work element by element on {self.names[i]}, whose {shape[0]} layers are "
                f"updated one at a time, got one with {found[0]}"
            )

    def _inputs(self, i: int) -> list[Any]:
        n, invars = len(self.names), self.jaxpr.jaxpr.invars
        return [invars[i], invars[n + i], *(invars[2 * n + j] for j in self.states_of(i))]

    def _outputs(self, i: int) -> list[Any]:
        n, outvars = len(self.names), self.jaxpr.jaxpr.outvars
        return [outvars[i], *(outvars[n + j] for j in self.states_of(i))]


def leafwise(where: str, optimizer: optax.GradientTransformation, params: Any, opt_state: Any) -> Leafwise:
    """Take an optimiser's step apart; nothing is computed.

    Raises:
      InputError: a new parameter, or a leaf of the state, needs the gradients of several parameters.
    """
    names = tuple(path_name(path) for path, _ in jax.tree.leaves_with_path(params))
    n = len(names)

    def step(grads: Any, params: Any, opt_state: Any) -> Any:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    with jax.disable_jit():  # calls of compiled functions would hide what is inside
        jaxpr = jax.make_jaxpr(step)(params, params, opt_state)
    states = len(jaxpr.jaxpr.invars) - 2 * n
    nothing: frozenset[int] = frozenset()
    of_params = [frozenset([i]) for i in range(n)]
    # A leaf of the state belongs to whom its next value belongs to: round by round, until nothing new is found.
    of_states, found = None, [nothing] * states
    needs: list[frozenset[int]] = []
    while of_states != found:
        of_states = found
        needs = _needs(jaxpr.jaxpr, [*of_params, *of_params, *of_states])
        found = [old | new for old, new in zip(of_states, needs[n:], strict=True)]
    for i, need in enumerate(needs):
        others = need - {i} if i < n else need
        if len(need) > 1:
            what = names[i] if i < n else "its state"
            raise InputError(
                f"{where}: optimizer must update each parameter from its own gradient and state, got one that needs "
                f"{names[min(others)]} too for {what} (for a global norm there is clip_global_norm)"
            )
    return Leafwise(jaxpr, tuple(next(iter(found_for), None) for found_for in found), names)


def _needs(jaxpr: Any, of_inputs: list[frozenset[int]]) -> list[frozenset[int]]:
    """Whose gradients, parameters and states each output needs."""
    nothing: frozenset[int] = frozenset()
    needs: Values = dict(zip(jaxpr.invars, of_inputs, strict=True))

    def need(atom: Any) -> frozenset[int]:
        return nothing if isinstance(atom, core.Literal) else needs.get(atom, nothing)

    for equation in jaxpr.eqns:
        together = functools.reduce(operator.or_, map(need, equation.invars), nothing)
        needs |= dict.fromkeys(equation.outvars, together)
    return [need(atom) for atom in jaxpr.outvars]


def _behind(jaxpr: Any, outputs: list[Any], known: Any = ()) -> set[int]:
    """The places of the equations that the outputs come from, back to what is known."""
    wanted = {atom for atom in outputs if not isinstance(atom, core.Literal)} - set(known)
    places = set()
    for place in reversed(range(len(jaxpr.eqns))):
        equation = jaxpr.eqns[place]
        if wanted.intersection(equation.outvars):
            places.add(place)
            wanted |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)} - set(known)
    return places


def _run(equation: Any, values: Values, read: Callable[[Any], Any], stack: tuple[int, ...] | None = None) -> None:
    """One equation, its outputs put among the values; with `stack` the shape of the whole, for one layer of it."""
    if stack is not None and _is_fill(equation):
        values[equation.outvars[0]] = jax.lax.broadcast(read(equation.invars[0]), stack[1:])
        return
    options = equation.primitive.get_bind_params(equation.params)
    found = equation.primitive.bind(*map(read, equation.invars), **options)
    values |= dict(zip(equation.outvars, found if equation.primitive.multiple_results else [found], strict=True))


def _read(atom: Any, values: Values) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]


def _is_scalar(equation: Any) -> bool:
    """Numbers from numbers: the same for every layer."""
    return all(atom.aval.shape == () for atom in (*equation.invars, *equation.outvars))


def _is_fill(equation: Any) -> bool:
    """One number everywhere."""
    return equation.primitive.name == "broadcast_in_dim" and equation.invars[0].aval.shape == ()
