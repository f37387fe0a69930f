"""A rule is a value: the two passes of an operation, and a function that any JAX program can differentiate."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

import jax
from jaxtyping import PyTree

from handgrad.factors import materialize
from handgrad.meshes import Types, varying_together

__all__ = ["Rule"]

P = ParamSpec("P")
Y = TypeVar("Y")


@dataclass(frozen=True)
class Rule(Generic[P, Y]):
    """A forward pass and its hand-written backward pass.

    Calling a rule runs the operation, under grad, jit, vmap, scan, remat (jax.checkpoint) and shard_map; its gradient
    is the backward pass's, factors multiplied out:

    >>> import jax, jax.numpy as jnp, handgrad as hg
    >>> square = hg.Rule(lambda X: (X * X, X), lambda X, dY: (2 * X * dY,))
    >>> jax.grad(lambda x: square(x))(jnp.float32(3.0))
    Array(6., dtype=float32)

    Attributes:
      forward: (*args, **options) -> (Y, residuals).
      backward: (residuals, dY, **options) -> one cotangent or factor for each argument, None for an integer one. It
        takes the same keyword-only options as `forward`, except `residuals`, the forward's choice of what to keep.
    """

    # Not a NamedTuple, though it unpacks like one: jax.jit refers to functions weakly, which no tuple allows.
    forward: Callable[P, tuple[Y, PyTree]]
    backward: Callable[..., tuple[PyTree, ...]]

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        """`forward, backward = rule`."""
        return iter((self.forward, self.backward))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Y:
        """Y of the forward pass, differentiated by the backward pass.

        Args:
          *args, **kwargs: as for `forward`: arrays, and options, which are static.
        Raises:
          InputError: as the forward pass.
        """
        signature = inspect.signature(self.forward)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:  # Python's own names no function
            raise TypeError(f"{self.__name__}(): {error}") from None
        bound.apply_defaults()  # an omitted argument is None, and so is its cotangent
        arrays = {name for name, p in signature.parameters.items() if p.kind is not p.KEYWORD_ONLY}
        rule = self.with_options(**{name: value for name, value in kwargs.items() if name not in arrays})
        return differentiable(rule.forward, rule.backward)(*bound.args)

    @property
    def __name__(self) -> str:
        """The forward pass's name without `_forward`; JAX's profiles and error messages show it."""
        forward = self.forward
        while isinstance(forward, partial):
            forward = forward.func
        return getattr(forward, "__name__", "rule").removesuffix("_forward")

    def with_options(self, **options: Any) -> "Rule[..., Y]":
        """The same rule with these options settled in both passes."""
        of_backward = {name: value for name, value in options.items() if name != "residuals"}
        return Rule(partial(self.forward, **options), partial(self.backward, **of_backward))


def differentiable(
    forward: Callable[..., tuple[Y, PyTree]], backward: Callable[..., tuple[PyTree, ...]]
) -> Callable[..., Y]:
    """The function of this forward pass, whose cotangents are the backward pass's, factors multiplied out."""

    def value(*args: PyTree) -> Y:
        return forward(*args)[0]

    def forward_and_types(*args: PyTree) -> tuple[Y, tuple[PyTree, Types]]:
        out, residuals = forward(*args)
        return out, (residuals, Types.of(args))

    def cotangents(kept: tuple[PyTree, Types], dY: PyTree) -> tuple[PyTree, ...]:
        residuals, types = kept
        return types.given_to(tuple(materialize(backward(residuals, dY))))

    primal = jax.custom_vjp(value)
    primal.defvjp(forward_and_types, cotangents)

    def f(*args: PyTree) -> Y:
        # Inside shard_map, parameters that are the same everywhere meet examples that are not. Said out here, outside
        # of the custom rule, JAX sums their cotangents as it does for any function.
        return primal(*varying_together(args))

    return f
