"""ode: the solution of dz/dt = f(z), a layer of as many steps as one likes with the parameters of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import meshes
from handgrad.checks import check_array, check_choice, check_cotangent, check_count, check_residuals
from handgrad.factors.base import accumulator
from handgrad.factors.coupled import coupled, coupling_in
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.structure._steps import (
    Grid,
    added_to,
    check_times,
    grid_of,
    joined,
    segment_of,
    split,
    zeros_of_sums,
)
from handgrad.layers.structure.residual import check_like
from handgrad.layers.sums import LoopResiduals
from handgrad.rules.structure.ode import (
    RUNGE_KUTTA,
    Tableau,
    adjoint_runge_kutta,
    pull_back_runge_kutta,
    runge_kutta_step,
)

__all__ = ["ode"]

State = Float[Array, "batch ..."]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OdeResiduals(LoopResiduals):
    """The checkpoints, and what is needed to run f once more: references.

    Attributes:
      starts: z at the beginning of each segment, (segments, batch, ...).
      z: z at the end of the last one.
      like: an array of the input's dtype, without a feature.
      params, key: the arguments of the forward pass.
    """

    starts: Float[Array, "segments batch ..."]
    z: Float[Array, "batch ..."]
    like: Array
    params: PyTree
    key: PRNGKeyArray | None


def ode(
    f: Layer,
    *,
    times: Sequence[float] = (0.0, 1.0),
    steps: int = 16,
    method: Literal["euler", "midpoint", "rk4", "dopri5"] = "rk4",
    returns: Literal["last", "all"] = "last",
    time: bool = False,
    gradient: Literal["checkpoints", "adjoint"] = "checkpoints",
) -> Layer:
    """z(T) of dz/dt = f(z), z(t₀) = x, with f's parameters: a neural ODE.

        >>> import handgrad as hg
        >>> f = hg.chain(hg.linear(16), hg.tanh(), hg.linear(2))
        >>> model = hg.chain(hg.ode(f, times=(0.0, 1.0), steps=8), hg.linear(3))

    Args:
      f: its output like z. With time=True it gets the pair (t, z), t of shape (batch, 1, ..., 1).
      times: increasing or decreasing: the first is x's, and each further one the end of an interval.
      steps: of each interval, all of one length.
      method: of Runge and Kutta: "euler", "midpoint", "rk4", or Dormand and Prince's of order five, "dopri5".
      returns: "last" for z at the last time, "all" for z at all times, (batch, times, ...), x first.
      gradient: "checkpoints" differentiates the steps, exactly: z is kept about √steps times in an interval, and
        between these the steps run again, twice. "adjoint" solves for z and its cotangent backwards in time, from the
        end of each interval: nothing more is kept, and the gradient is as exact as the steps are short.
    Raises:
      InputError: an option that can't be used; at trace time, where f's output is unlike z.
    Derivation: docs/derivations/structure/ode.md (Chen, Rubanova, Bettencourt, Duvenaud, 2018)
    """
    check_layer("ode", f)
    check_count("ode", "steps", steps)
    check_choice("ode", "method", method, tuple(RUNGE_KUTTA))
    check_choice("ode", "returns", returns, ("last", "all"))
    check_choice("ode", "gradient", gradient, ("checkpoints", "adjoint"))
    check_times("ode", times)
    grid = grid_of(times, steps, steps if gradient == "adjoint" else segment_of(steps))
    each = len(grid[0]) // (len(times) - 1)  # segments of an interval
    flow = _Flow(placed("f", f), time, RUNGE_KUTTA[method], grid)
    segment_back = _along_adjoint if gradient == "adjoint" else _through_steps

    def init(key, x):
        check_array("ode", "x", x, min_ndim=2)
        t = jax.ShapeDtypeStruct((x.shape[0], *(1,) * (len(x.shape) - 1)), x.dtype)
        return flow.f.init(key, (t, x) if time else x)

    def forward(params, x, key=None):
        check_array("ode", "x", x, min_ndim=2)
        step = partial(flow.step, params, key, x.dtype)

        def segment(Z, t_and_h):
            return meshes.scan(lambda Z, t_and_h: (step(Z, t_and_h), None), Z, t_and_h)[0], Z

        dtype = accumulator(x)
        z, starts = meshes.scan(segment, x.astype(dtype), flow.grid_in(dtype))
        y = z if returns == "last" else jnp.moveaxis(jnp.concatenate([starts[::each], z[None]]), 0, 1)
        return y.astype(x.dtype), OdeResiduals(starts, z, x[..., :0], params, key)

    def backward(residuals, dy):
        residuals = check_residuals("ode", residuals, OdeResiduals)
        z, dtype = residuals.z, residuals.like.dtype
        shape = z.shape if returns == "last" else (z.shape[0], len(times), *z.shape[1:])
        check_cotangent("ode", dy, shape, dtype, name="dy", of="y")
        dy = dy.astype(z.dtype)

        def one_segment(carry, place):
            i, point, t_and_h = place
            dZ, totals = carry
            if returns == "all":  # what the values at given times bring, where a segment ends at one
                arriving = jax.lax.dynamic_index_in_dim(dy, (i + 1) // each, axis=1, keepdims=False)
                dZ = dZ + jnp.where((i + 1) % each == 0, arriving, jnp.zeros_like(arriving))
            return segment_back(flow, residuals, (dZ, totals), point, t_and_h)

        points = residuals.starts
        if gradient == "adjoint":
            points = jnp.concatenate([points[1:], z[None]])
        # The gradients of one stage: which of them are sums, and which are factors.
        like = jax.eval_shape(lambda t, Z: flow.linearized(residuals, t, Z)[1](Z)[1], jnp.zeros((), z.dtype), z)
        carry = dy if returns == "last" else jnp.zeros_like(z), zeros_of_sums(like)
        places = jnp.arange(len(points)), points, flow.grid_in(z.dtype)
        (dZ, totals), factors = meshes.scan(one_segment, carry, places, reverse=True)
        dx = dZ if returns == "last" else dZ + dy[:, 0]
        dparams = joined(like, totals, factors)
        # What lies behind a coupling in one step lies before that of the next.
        return dx.astype(dtype), coupled(dparams, f.couples or coupling_in(dparams))

    return composed(init, forward, backward, flow.f.couples)


class _Flow(NamedTuple):
    """f and the steps that are taken with it: in f's own dtype, what is added up in float32 at least."""

    f: Layer
    time: bool
    tableau: Tableau
    grid: Grid

    def slope(
        self, params: PyTree, key: PRNGKeyArray | None, dtype: DTypeLike, t: Float[Array, ""], Z: State
    ) -> tuple[State, PyTree]:
        """f at (t, Z), and what it keeps."""
        z = Z.astype(dtype)
        K, kept = self.f.forward(params, (_column(t, z), z) if self.time else z, key)
        check_like("ode", z, K)
        return K.astype(Z.dtype), kept

    def linearized(self, at: OdeResiduals, t: Float[Array, ""], Z: State) -> tuple[State, PyTree]:
        """f at (t, Z), and its pull-back."""
        K, kept = self.slope(at.params, at.key, at.like.dtype, t, Z)
        kept = at.told(kept)

        def pull_back(dK: State) -> tuple[State, PyTree]:
            dx, dparams = self.f.backward(kept, dK.astype(at.like.dtype))
            return (dx[1] if self.time else dx).astype(Z.dtype), at.as_wanted(dparams)

        return K, pull_back

    def step(
        self, params: PyTree, key: PRNGKeyArray | None, dtype: DTypeLike, Z: State, t_and_h: tuple[Array, Array]
    ) -> State:
        return runge_kutta_step(lambda t, Z: self.slope(params, key, dtype, t, Z)[0], self.tableau, *t_and_h, Z)

    def grid_in(self, dtype: DTypeLike) -> tuple[Array, Array]:
        t, h = self.grid
        return jnp.asarray(t, dtype), jnp.asarray(h, dtype)


def _through_steps(flow: _Flow, at: OdeResiduals, carry: PyTree, start: State, t_and_h: tuple[Array, Array]) -> PyTree:
    """A segment from its start once more, then back step by step."""

    def forth(Z, t_and_h):
        return flow.step(at.params, at.key, at.like.dtype, Z, t_and_h), Z

    def back(carry, place):
        (dZ, totals), (t_and_h, Z) = carry, place
        t, h = t_and_h
        dZ, stages = pull_back_runge_kutta(partial(flow.linearized, at), flow.tableau, t, h, Z, dZ)
        sums, factors = split(stages)
        return (dZ, added_to(totals, sums)), factors

    _, Z = meshes.scan(forth, start, t_and_h)
    return meshes.scan(back, carry, (t_and_h, Z), reverse=True)


def _along_adjoint(flow: _Flow, at: OdeResiduals, carry: PyTree, end: State, t_and_h: tuple[Array, Array]) -> PyTree:
    """A segment from its end, z beside its cotangent."""

    def back(carry, t_and_h):
        (Z, A, totals), (t, h) = carry, t_and_h
        Z, A, stages = adjoint_runge_kutta(partial(flow.linearized, at), flow.tableau, t, h, Z, A)
        sums, factors = split(stages)
        return (Z, A, added_to(totals, sums)), factors

    (_, *carry), factors = meshes.scan(back, (end, *carry), t_and_h, reverse=True)
    return tuple(carry), factors


def _column(t: Float[Array, ""], z: State) -> State:
    """The time, for every example."""
    return meshes.along_batch(lambda z, t: jnp.full((z.shape[0], *(1,) * (z.ndim - 1)), t, z.dtype), z, t)
