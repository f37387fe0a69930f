"""mamba: a selective state space model between a short convolution and a gate."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from handgrad import rules
from handgrad.checks import check_count, check_params, check_residuals
from handgrad.factors import PerExample
from handgrad.layers.activations.self_gated import silu
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._mixing import Sizes, Tokens, mixing
from handgrad.layers.sequences.delta_rule import short_convolution
from handgrad.layers.structure.chain import chain

__all__ = ["MambaParams", "SelectiveStateParams", "mamba"]

Inputs = tuple[Tokens, Tokens]  # u, and the gate's


class SelectiveStateParams(NamedTuple):
    """Parameters of what `mamba` has between its projections.

    Attributes:
      select: W (n, rank + 2 states), of what step sizes, writing and reading depend on.
      step: W (rank, n) and b (n,) of the step sizes.
      log_rate: (n, states) the logarithms of −A, initialized to log 1, log 2, …
      skip: (n,) D, initialized to ones.
    """

    select: LinearParams
    step: LinearParams
    log_rate: Array
    skip: Array


class MambaParams(NamedTuple):
    """Parameters of `mamba`, n = expand × width.

    Attributes:
      inner: a dict of "project", W (width, n), and "convolve", K (kernel, 1, n) and b (n,).
      gate: W (width, n).
      mixer: SelectiveStateParams(select, step, log_rate, skip).
      output: W (n, width).
    """

    inner: dict[str, Any]
    gate: LinearParams
    mixer: SelectiveStateParams
    output: LinearParams


class SelectiveStateResiduals(NamedTuple):
    """select, step, softplus, scan, gate: what each rule keeps."""

    select: rules.LinearResiduals
    step: rules.LinearResiduals
    softplus: rules.SoftplusResiduals
    scan: rules.SelectiveScanResiduals
    gate: rules.SwigluResiduals


def mamba(
    *,
    expand: int = 2,
    states: int = 16,
    kernel: int | None = 4,
    rank: int | None = None,
    steps: tuple[float, float] = (1e-3, 1e-1),
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = (silu(x W) ∘ selective_scan(u, δ, A, b, c, d)) W with u = silu(conv(x W)), from x (batch, tokens, width).

    r, b, c = u W, δ = softplus(r W + b) and A = −e^log_rate: how fast a feature's states decay, what they write and
    what is read depend on the token.

    >>> import jax, jax.numpy as jnp
    >>> from handgrad import layers
    >>> layers.mamba(states=8).init(jax.random.key(0), jnp.ones((1, 10, 32))).mixer.log_rate.shape
    (64, 8)

    Args:
      expand: features inside, as a multiple of the width.
      states: of each feature.
      kernel: tokens that the convolution sees; None is no convolution.
      rank: of the step sizes' weight; None is a sixteenth of the width, rounded up.
      steps: the step sizes are initialized within these bounds, evenly in their logarithm.
      chunk: as selective_scan_forward.
      init_W: initializer of the projections' weights, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/selective_scan.md (Gu and Dao 2023)
    """
    where = "mamba"
    for name, value in {"expand": expand, "states": states, "kernel": kernel, "rank": rank}.items():
        if value is not None or name not in ("kernel", "rank"):
            check_count(where, name, value)

    def sizes(width: int) -> Sizes:
        return Sizes(width, rank or -(-width // 16), expand * width)

    def projections(sizes: Sizes) -> dict[str, Layer]:
        inner = chain(**short_convolution(sizes.values, kernel, bias=True, init_W=init_W), silu=silu())
        return {"inner": inner, "gate": linear(sizes.values, bias=False, init_W=init_W)}

    def rank_of(n: int) -> int:
        return rank or -(-n // (16 * expand))

    return mixing(where, MambaParams, sizes, projections, _selective(rank_of, states, steps, chunk, init_W), init_W)


def _selective(
    rank_of: Callable[[int], int], states: int, steps: tuple[float, float], chunk: int | None, init_W: Initializer
) -> Layer:
    """The selective scan and its gate, between u and the output's projection."""
    rule = rules.selective_scan.with_options(chunk=chunk)

    def init(key: PRNGKeyArray, x: Inputs) -> SelectiveStateParams:
        n, dtype = x[0].shape[2], jax.dtypes.canonicalize_dtype(x[0].dtype)
        of_select, of_step, of_bias = jax.random.split(key, 3)
        rank = rank_of(n)
        select = LinearParams(init_W(of_select, (n, rank + 2 * states), dtype))
        size = jnp.exp(jax.random.uniform(of_bias, (n,), dtype, *map(math.log, steps)))
        b = size + jnp.log(-jnp.expm1(-size))  # of which softplus is the size
        step = LinearParams(jax.random.uniform(of_step, (rank, n), dtype, -(rank**-0.5), rank**-0.5), b)
        rates = jnp.broadcast_to(jnp.log(jnp.arange(1, states + 1, dtype=dtype))[None], (n, states))
        return SelectiveStateParams(select, step, rates, jnp.ones(n, dtype))

    def forward(
        params: SelectiveStateParams, x: Inputs, key: PRNGKeyArray | None = None
    ) -> tuple[Tokens, SelectiveStateResiduals]:
        select, step, log_rate, skip = check_params("mamba", params, SelectiveStateParams)
        u, z = x
        selected, of_select = rules.linear_forward(u, *select)
        r, B, C = jnp.split(selected, [selected.shape[2] - 2 * states, selected.shape[2] - states], axis=2)
        size, of_step = rules.linear_forward(r, *step)
        Delta, of_softplus = rules.softplus_forward(size)
        (Y, _), scanned = rule.forward(u, Delta, -jnp.exp(log_rate), B, C, skip)
        y, gate = rules.swiglu_forward(z, Y)
        return y, SelectiveStateResiduals(of_select, of_step, of_softplus, scanned, gate)

    def backward(residuals: SelectiveStateResiduals, dy: Tokens) -> tuple[Inputs, SelectiveStateParams]:
        kept = check_residuals("mamba", residuals, SelectiveStateResiduals)
        dz, dY = rules.swiglu_backward(kept.gate, dy)
        no_state = jnp.zeros(kept.scan.states.shape[1:], kept.scan.states.dtype)
        du, dDelta, dA, dB, dC, dskip, _ = rule.backward(kept.scan, (dY, jnp.swapaxes(no_state, 1, 2)))
        dr, *dstep = rules.linear_backward(kept.step, *rules.softplus_backward(kept.softplus, dDelta))
        du_selected, *dselect = rules.linear_backward(kept.select, jnp.concatenate([dr, dB, dC], axis=2))
        # A = −e^log_rate is its own derivative
        dlog_rate = PerExample(dA.g * kept.scan.A[None].astype(dA.g.dtype), dA.dtype)
        found = SelectiveStateParams._make([*map(LinearParams._make, (dselect, dstep)), dlog_rate, dskip])
        return (du + du_selected, dz), found

    return Layer(init, forward, backward)
