"""root: the z with g(z, x) = 0, a layer that is defined by an equation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_cotangent, check_residuals
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.structure.fixed_point import check_solver, first_point
from handgrad.layers.structure.residual import check_like
from handgrad.layers.sums import LoopResiduals
from handgrad.rules.structure.fixed_point import Convergence
from handgrad.rules.structure.root import pull_back_root, solve_root

__all__ = ["root"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RootResiduals(LoopResiduals):
    """The root, and what is needed to run g there once more: references.

    Attributes:
      z: the root, the output.
      x, params, key: the arguments of the forward pass.
      convergence: how each example's iteration ended; its error is the length of the last step.
    """

    z: Array
    x: PyTree
    params: PyTree
    key: PRNGKeyArray | None
    convergence: Convergence


def root(
    g: Layer,
    *,
    start: Callable[[PyTree], Array] | None = None,
    tol: float | None = 1e-5,
    iterations: int = 20,
    unconverged: Literal["keep", "nan"] = "keep",
) -> Layer:
    """z with g(z, x) = 0, by Newton's method, with g's parameters.

    Each step writes every example's Jacobian, n pull-backs by g's backward pass for n numbers in z, and solves with it;
    so does the backward pass, once. It is for a z of some tens of numbers; `fixed_point` has no Jacobian.

    Args:
      g: of the pair (z, x), its output like z, example by example.
      start: x -> the first z; None for zeros like x. The gradient does not depend on it.
      tol: an example has converged with a step of max |step| ≤ tol (1 + max |z|), and takes no further one; the error
        that is left is about its square. The residuals' `convergence` reports it. None always takes all steps, as a
        loop that autodiff can differentiate too.
      iterations: steps at most.
      unconverged: "nan" for an example that has not converged, "keep" for its last z.
    Raises:
      InputError: an option that can't be used, a g that couples examples; at trace time, where its output is unlike z.
    Derivation: docs/derivations/structure/root.md
    """
    check_layer("root", g)
    check_solver("root", tol, iterations, unconverged)
    if g.couples is not None:  # its Jacobian is not a matrix for each example
        raise InputError(f"root: g must treat each example by itself, got one that says {g.couples!r}")
    g = placed("g", g)

    def init(key, x):
        return g.init(key, (jax.eval_shape(lambda x: first_point("root", x, start), x), x))

    def forward(params, x, key=None):
        def linearized(z):
            y, kept = g.forward(params, (z, x), key)
            check_like("root", z, y)
            return y, lambda dy: ((back := g.backward(kept, dy))[0][0], back)

        first = first_point("root", x, start)
        z, convergence = solve_root(linearized, first, tol=tol, iterations=iterations, unconverged=unconverged)
        return z, RootResiduals(z, x, params, key, convergence)

    def backward(residuals, dy):
        residuals = check_residuals("root", residuals, RootResiduals)
        check_cotangent("root", dy, residuals.z.shape, residuals.z.dtype, name="dy", of="y")
        _, kept = g.forward(residuals.params, (residuals.z, residuals.x), residuals.key)
        kept = residuals.told(kept)

        def pull_back(dy):
            (dz, dx), dparams = g.backward(kept, dy)
            return dz, (dx, dparams)

        return pull_back_root(pull_back, residuals.z, dy)

    return composed(init, forward, backward)
