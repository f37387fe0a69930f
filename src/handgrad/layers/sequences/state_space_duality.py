"""mamba2: one projection, a short convolution, a state space model of one decay a head, and a gated norm."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from handgrad import rules
from handgrad.checks import InputError, as_row, check_count, check_params, check_residuals, check_shape
from handgrad.factors import Hadamard, Total
from handgrad.factors.base import accumulator
from handgrad.layers.activations.self_gated import silu
from handgrad.layers.images.convolution import ConvolutionParams, convolution
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._mixing import Sizes, Tokens, by_head, mixing, side_by_side
from handgrad.layers.structure.chain import chain

__all__ = ["Mamba2MixerParams", "Mamba2Params", "mamba2"]

Inputs = tuple[Tokens]  # z, x, B, C and the step sizes, side by side


class Mamba2MixerParams(NamedTuple):
    """Parameters of what `mamba2` has between its projections, n = expand × width.

    Attributes:
      conv1d: K (kernel, 1, n + 2 groups × states) and b.
      dt_bias: (heads,) bias of the step sizes, before softplus.
      A_log: (heads,) the logarithms of the rates −A.
      D: (heads,) weights of the skip connection.
      norm: (n,) scale of the gated norm.
    """

    conv1d: ConvolutionParams
    dt_bias: Array
    A_log: Array
    D: Array
    norm: Array


class Mamba2Params(NamedTuple):
    """Parameters of `mamba2`, n = expand × width.

    Attributes:
      project: W (width, 2 n + 2 groups × states + heads), columns in the order z, x, B, C, dt.
      mixer: Mamba2MixerParams(conv1d, dt_bias, A_log, D, norm).
      output: W (n, width).
    """

    project: LinearParams
    mixer: Mamba2MixerParams
    output: LinearParams


class Mamba2MixerResiduals(NamedTuple):
    """convolved, softplus, scan, gate, norm: what each rule keeps; N: the normalized features; params."""

    params: Mamba2MixerParams
    convolved: Any
    softplus: rules.SoftplusResiduals
    scan: rules.StateSpaceDualityResiduals
    gate: rules.SwigluResiduals
    norm: rules.RmsNormResiduals
    N: Tokens


def mamba2(
    heads: int,
    *,
    expand: int = 2,
    states: int = 128,
    groups: int = 1,
    kernel: int = 4,
    rates: tuple[float, float] = (1.0, 16.0),
    steps: tuple[float, float] = (1e-3, 1e-1),
    eps: float = 1e-5,
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = (norm(silu(z) ∘ state_space_duality(x, δ, A, B, C, D)) ∘ γ) W, the block of Mamba-2.

    [z u dt] = X W, [x B C] = silu(conv(u)), δ = softplus(dt + dt_bias), A = −e^A_log: (batch, tokens, width) to the
    same, causal, in time and memory linear in the tokens.

    >>> import jax, jax.numpy as jnp
    >>> from handgrad import layers
    >>> layers.mamba2(4, states=8).init(jax.random.key(0), jnp.ones((1, 10, 32))).project.W.shape
    (32, 148)

    Args:
      heads: side by side, each of expand × width / heads features (64 in published models).
      expand: features of all heads, as a multiple of the width.
      states: of each feature.
      groups: of heads that share B and C, and are normalized together.
      kernel: tokens that the convolution sees.
      rates: −A is initialized within these bounds, evenly.
      steps: the step sizes are initialized within these bounds, evenly in their logarithm.
      eps: of the norm, a positive number.
      chunk: as linear_attention_forward.
      init_W: initializer of the projections' weights, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/state_space_duality.md (Dao and Gu 2024)
    """
    where = "mamba2"
    counts = {"heads": heads, "expand": expand, "states": states, "groups": groups, "kernel": kernel}
    for name, value in counts.items():
        check_count(where, name, value)
    if heads % groups:
        raise InputError(f"{where}: groups must divide the heads, got {groups} groups of {heads} heads")

    def sizes(width: int) -> Sizes:
        if expand * width % heads:
            raise InputError(f"{where}: heads must divide expand × width, got {heads} heads and {expand} × {width}")
        return Sizes(width, groups * states, expand * width)

    def projections(of_x: Sizes) -> dict[str, Layer]:
        return {"project": linear(2 * (of_x.values + of_x.keys) + heads, bias=False, init_W=init_W)}

    mixer = _mixer(heads, groups, states, kernel, _initial(heads, rates, steps), eps, chunk)
    return mixing(where, Mamba2Params, sizes, projections, mixer, init_W)


def _initial(
    heads: int, rates: tuple[float, float], steps: tuple[float, float]
) -> Callable[[PRNGKeyArray, jnp.dtype], tuple[Array, Array]]:
    """dt_bias and A_log, of step sizes and rates within these bounds."""

    def draw(key: PRNGKeyArray, dtype: jnp.dtype) -> tuple[Array, Array]:
        of_step, of_rate = jax.random.split(key)
        step = jnp.exp(jax.random.uniform(of_step, (heads,), dtype, *map(math.log, steps)))
        dt_bias = step + jnp.log(-jnp.expm1(-step))  # of which softplus is the step
        return dt_bias, jnp.log(jax.random.uniform(of_rate, (heads,), dtype, *rates))

    return draw


def _mixer(
    heads: int,
    groups: int,
    states: int,
    kernel: int,
    initial: Callable[[PRNGKeyArray, jnp.dtype], tuple[Array, Array]],
    eps: float,
    chunk: int | None,
) -> Layer:
    """Everything between the two projections; `initial` is of dt_bias and A_log."""
    rule, norm = rules.state_space_duality.with_options(chunk=chunk), rules.rms_norm.with_options(eps=eps)
    keys = groups * states

    def values(x: Inputs) -> int:
        return (x[0].shape[2] - heads) // 2 - keys

    def short(n: int) -> Layer:
        return chain(conv1d=convolution(n, kernel, padding=((kernel - 1, 0),), groups=n), silu=silu())

    def init(key: PRNGKeyArray, x: Inputs) -> Mamba2MixerParams:
        n, dtype = values(x), jax.dtypes.canonicalize_dtype(x[0].dtype)
        of_K, of_steps = jax.random.split(key)
        K = short(n + 2 * keys).init(of_K, jax.ShapeDtypeStruct((*x[0].shape[:2], n + 2 * keys), dtype))["conv1d"]
        return Mamba2MixerParams(K, *initial(of_steps, dtype), jnp.ones(heads, dtype), jnp.ones(n, dtype))

    def forward(
        params: Mamba2MixerParams, x: Inputs, key: PRNGKeyArray | None = None
    ) -> tuple[Tokens, Mamba2MixerResiduals]:
        conv1d, dt_bias, A_log, D, gamma = check_params("mamba2", params, Mamba2MixerParams)
        n, wide = values(x), accumulator(x[0], dt_bias, A_log)
        check_shape("mamba2", "params.mixer.dt_bias", dt_bias, (heads,), "(one for each head)")
        check_shape("mamba2", "params.mixer.norm", gamma, (n,), "(one for each feature)")
        z, seen, dt = jnp.split(x[0], [n, 2 * n + 2 * keys], axis=2)
        seen, convolved = short(n + 2 * keys).forward({"conv1d": conv1d, "silu": ()}, seen)
        u, B, C = jnp.split(seen, [n, n + keys], axis=2)
        Delta, softplus = rules.softplus_forward(dt.astype(wide) + as_row(dt_bias.astype(wide), 3))
        A = -jnp.exp(A_log.astype(wide))
        (Y, _), scan = rule.forward(by_head(u, heads), Delta, A, by_head(B, groups), by_head(C, groups), D)
        Z, gate = rules.swiglu_forward(z, side_by_side(Y))
        N, normed = norm.forward(by_head(Z, groups))
        N = side_by_side(N)
        return N * as_row(gamma, 3), Mamba2MixerResiduals(params, convolved, softplus, scan, gate, normed, N)

    def backward(residuals: Mamba2MixerResiduals, dy: Tokens) -> tuple[Inputs, Mamba2MixerParams]:
        (_, dt_bias, A_log, _, gamma), convolved, softplus, scan, gate, normed, N = check_residuals(
            "mamba2", residuals, Mamba2MixerResiduals
        )
        dZ, *_ = norm.backward(normed, by_head(dy * as_row(gamma, 3), groups))
        dz, dY = rules.swiglu_backward(gate, side_by_side(dZ))
        no_state = jnp.zeros((*scan.states.shape[1:3], *scan.states.shape[:2:-1]), scan.states.dtype)
        du, dDelta, dA, dB, dC, dD, _ = rule.backward(scan, (by_head(dY, heads), no_state))
        (ddt,) = rules.softplus_backward(softplus, dDelta)
        dseen = jnp.concatenate([side_by_side(d) for d in (du, dB, dC)], axis=2)
        dseen, dconvolve = short(dseen.shape[2]).backward(convolved, dseen)
        dA_log = Hadamard(dA.A, dA.Delta * as_row(scan.A, 3), A_log.dtype)  # A = −e^A_log is its own derivative
        dx = jnp.concatenate([dz, dseen, ddt.astype(dz.dtype)], axis=2)
        found = [dconvolve["conv1d"], Total(ddt, dt_bias.dtype), dA_log, dD, Hadamard(N, dy, gamma.dtype)]
        return (dx,), Mamba2MixerParams._make(found)

    return Layer(init, forward, backward)
