"""Quantizers as layers: a codebook of vectors, and a step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from handgrad import rules
from handgrad.checks import check_array, check_count, check_params, check_positive
from handgrad.layers.layer import Layer

__all__ = ["LsqQuantizeParams", "VectorQuantizeParams", "lsq_quantize", "vector_quantize"]

Input = Array | jax.ShapeDtypeStruct


class VectorQuantizeParams(NamedTuple):
    """Parameters of `vector_quantize`.

    Attributes:
      codebook: (codes, n).
    """

    codebook: Array


class LsqQuantizeParams(NamedTuple):
    """Parameters of `lsq_quantize`.

    Attributes:
      s: the step, (), or (n,) with per_feature.
    """

    s: Array


def vector_quantize(
    codes: int, *, beta: float = 0.25, init_codebook: jax.nn.initializers.Initializer | None = None
) -> Layer:
    """y = each vector's nearest code, with its loss beside it: (y, C), for `carry_auxiliary` and `add_auxiliary`.

    Args:
      codes: how many.
      beta: the weight of the commitment in C.
      init_codebook: initializer, (key, shape, dtype) -> array; None: uniform in ±1 / codes.
    Derivation: docs/derivations/structure/quantization.md
    """
    check_count("vector_quantize", "codes", codes)
    rule = rules.vector_quantize.with_options(beta=beta)

    def init(key: PRNGKeyArray, x: Input) -> VectorQuantizeParams:
        check_array("vector_quantize", "x", x, min_ndim=2)
        shape = (codes, x.shape[-1])
        if init_codebook is not None:
            return VectorQuantizeParams(init_codebook(key, shape, x.dtype))
        return VectorQuantizeParams(jax.random.uniform(key, shape, x.dtype, -1 / codes, 1 / codes))

    def forward(params, x, key=None):
        return rule.forward(x, check_params("vector_quantize", params, VectorQuantizeParams).codebook)

    def backward(residuals, dy):
        dx, dcodebook = rule.backward(residuals, dy)
        return dx, VectorQuantizeParams(dcodebook)

    return Layer(init, forward, backward)


def lsq_quantize(bits: int = 8, *, signed: bool = True, step: float = 0.1, per_feature: bool = False) -> Layer:
    """y = s · round(clip(x / s, −N, P)), the step s learned.

    Args:
      bits: N = 2^(bits − 1) and P = N − 1; not signed, N = 0 and P = 2^bits − 1.
      step: s to begin with; the paper's is 2 mean |x| / √P of the first batch.
      per_feature: True has a step for each feature.
    Derivation: docs/derivations/structure/quantization.md
    """
    check_positive("lsq_quantize", "step", step)
    rule = rules.lsq_quantize.with_options(bits=bits, signed=signed)

    def init(key: PRNGKeyArray, x: Input) -> LsqQuantizeParams:
        check_array("lsq_quantize", "x", x, min_ndim=2)
        return LsqQuantizeParams(jnp.full(x.shape[-1:] if per_feature else (), step, x.dtype))

    def forward(params, x, key=None):
        return rule.forward(x, check_params("lsq_quantize", params, LsqQuantizeParams).s)

    def backward(residuals, dy):
        dx, ds = rule.backward(residuals, dy)
        return dx, LsqQuantizeParams(ds)

    return Layer(init, forward, backward)
