"""fixed_point: the z with z = f(z, x), a layer of infinite depth that keeps nothing but its output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.checks import check_array, check_choice, check_cotangent, check_count, check_positive, check_residuals
from handgrad.factors.coupled import coupled, coupling_in
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.structure.residual import check_like
from handgrad.layers.sums import LoopResiduals
from handgrad.rules.structure.fixed_point import Convergence, pull_back_fixed_point, solve_fixed_point

__all__ = ["fixed_point"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FixedPointResiduals(LoopResiduals):
    """The fixed point, and what is needed to run f there once more: references.

    Attributes:
      z: the fixed point, the output.
      x, params, key: the arguments of the forward pass.
      convergence: how each example's iteration ended.
    """

    z: Array
    x: PyTree
    params: PyTree
    key: PRNGKeyArray | None
    convergence: Convergence


def fixed_point(
    f: Layer,
    *,
    start: Callable[[PyTree], Array] | None = None,
    tol: float | None = 1e-5,
    iterations: int = 50,
    history: int = 5,
    backward_tol: float | None = None,
    backward_iterations: int | None = None,
    unconverged: Literal["keep", "nan"] = "keep",
) -> Layer:
    """z = f(z, x), a deep equilibrium model (DEQ), with f's parameters.

    The gradient is that of the fixed point, whatever the path to it (implicit function theorem). f is linearized once,
    at z: memory does not grow with the iterations, and each parameter's gradient is ONE factor, as if f stood in the
    network once.

        >>> import handgrad as hg
        >>> f = hg.chain(hg.branches(hg.linear(8), hg.linear(8)), hg.layers.added(), hg.tanh())
        >>> model = hg.chain(hg.linear(8), hg.fixed_point(f), hg.linear(3))

    Args:
      f: of the pair (z, x), its output like z. An iteration needs f to contract: 0.5 times an orthogonal weight does.
      start: x -> the first z; None for zeros like x. The gradient does not depend on it.
      tol: an example has converged where max |f(z, x) − z| ≤ tol (1 + max |f(z, x)|), and stays as it is. The
        residuals' `convergence` reports it for each. None is plain iteration, all of it, as a loop that autodiff can
        differentiate too.
      iterations: evaluations of f at most.
      history: steps that Anderson's extrapolation looks back; 0 for plain iteration.
      backward_tol, backward_iterations: of u = dz + (∂f/∂z)ᵀ u, relative to max |u|; None for the forward pass's.
      unconverged: "nan" for an example that has not converged: in its output, or, where the backward pass has not, in
        its cotangents and gradients. "keep" takes the last iterate.
    Raises:
      InputError: an option that can't be used; at trace time, where f's output is unlike z.
    Derivation: docs/derivations/structure/fixed_point.md (Bai, Kolter, Koltun, 2019)
    """
    check_layer("fixed_point", f)
    check_solver("fixed_point", tol, iterations, unconverged)
    check_solver("fixed_point", tol if backward_tol is None else backward_tol, backward_iterations or iterations)
    if history != 0:
        check_count("fixed_point", "history", history)
    f = placed("f", f)
    both = {"history": history, "unconverged": unconverged, "together": f.couples is not None}
    ahead = both | {"tol": tol, "iterations": iterations}
    back = both | {
        "tol": tol if backward_tol is None else backward_tol,
        "iterations": backward_iterations or iterations,
    }

    def init(key, x):
        return f.init(key, (jax.eval_shape(lambda x: first_point("fixed_point", x, start), x), x))

    def forward(params, x, key=None):
        def step(z):
            y, _ = f.forward(params, (z, x), key)
            check_like("fixed_point", z, y)
            return y

        z, convergence = solve_fixed_point(step, first_point("fixed_point", x, start), **ahead)
        return z, FixedPointResiduals(z, x, params, key, convergence)

    def backward(residuals, dy):
        residuals = check_residuals("fixed_point", residuals, FixedPointResiduals)
        check_cotangent("fixed_point", dy, residuals.z.shape, residuals.z.dtype, name="dy", of="y")
        _, kept = f.forward(residuals.params, (residuals.z, residuals.x), residuals.key)
        kept = residuals.told(kept)

        def pull_back(u):
            (dz, dx), dparams = f.backward(kept, u)
            return dz, (dx, dparams)

        (dx, dparams), _ = pull_back_fixed_point(pull_back, dy, **back)
        # What lies behind a coupling in one evaluation lies before that of the next.
        return dx, coupled(dparams, f.couples or coupling_in(dparams))

    return composed(init, forward, backward, f.couples)


def first_point(where: str, x: PyTree, start: Callable[[PyTree], Array] | None) -> Array:
    """The z that an iteration starts from."""
    if start is None:
        check_array(where, "x", x, min_ndim=1)
        return jnp.zeros_like(x)
    z = start(x)
    check_array(where, "start(x)", z, min_ndim=1)
    return z


def check_solver(where: str, tol: object, iterations: object, unconverged: object = "keep") -> None:
    """The options of an iteration."""
    if tol is not None:
        check_positive(where, "tol", tol)
    check_count(where, "iterations", iterations)
    check_choice(where, "unconverged", unconverged, ("keep", "nan"))
