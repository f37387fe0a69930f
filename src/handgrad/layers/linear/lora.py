"""lora_linear: a linear layer whose change is a product of two thin matrices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, check_array, check_count, check_params, check_positive, check_shape, describe
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import LinearParams
from handgrad.rules.linear.lora import lora_linear_backward, lora_linear_forward

__all__ = [
    "LoraParams",
    "add_lora",
    "is_adapter",
    "lora_linear",
    "merge_lora",
]

Array = jax.Array
Initializer = jax.nn.initializers.Initializer


class LoraParams(NamedTuple):
    """Parameters of `lora_linear`.

    Attributes:
      W: (n_in, n_out) weights.
      A: (n_in, rank) first adapter.
      B: (rank, n_out) second adapter, zero to begin with.
      b: (n_out,) bias, or None.
    """

    W: Any
    A: Any
    B: Any
    b: Any = None


def lora_linear(
    n_out: int,
    *,
    rank: int,
    alpha: float | None = None,
    bias: bool = True,
    residuals: str = "save",
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
    init_A: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """Y = X W + (α / rank) (X A) B + 1 bᵀ, with parameters LoraParams(W, A, B, b). B begins at zero: Y = X W + 1 bᵀ.

    Every gradient is there, W's too, as a factor. What is learned is the optimizer's choice: `is_adapter` says which
    leaves the adapters are, for optax.masked or optax.multi_transform. A gradient that a jitted step throws away is
    never multiplied out, so a frozen W costs no product.

    Args:
      n_out: output features.
      rank: columns of A, rows of B.
      alpha: α; None stands for rank, so that the product counts once.
      bias: False leaves b away.
      residuals: "save" keeps X A, "recompute" forms it again.
      init_W, init_A, init_b: initializers, (key, shape, dtype) -> array; parameters get the dtype of `init`'s x.
    Raises:
      InputError: n_out or rank is not a positive integer, alpha not positive; at trace time, params of another layer,
        and as lora_linear_forward and lora_linear_backward.
    Derivation: docs/derivations/linear/lora.md (Hu et al., 2021)
    """
    check_count("lora_linear", "n_out", n_out)
    check_count("lora_linear", "rank", rank)
    scale = _scale("lora_linear", rank, alpha)

    def init(key, x):
        check_array("lora_linear", "x", x, min_ndim=2)
        key_W, key_b, key_A = jax.random.split(key, 3)
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        W = init_W(key_W, (x.shape[-1], n_out), dtype)
        b = init_b(key_b, (n_out,), dtype) if bias else None
        return add_lora(key_A, LinearParams(W, b), rank, init_A=init_A)

    def forward(params, x, key=None):
        check_params("lora_linear", params, LoraParams)
        check_array("lora_linear", "params.W", params.W, min_ndim=2)
        n_in = params.W.shape[0]
        for name, leaf, shape in (("W", params.W, (n_in, n_out)), ("A", params.A, (n_in, rank))):
            check_shape("lora_linear", f"params.{name}", leaf, shape)
        if (params.b is not None) != bias:
            raise InputError(
                f"lora_linear: params.b must be {'an array' if bias else 'None'}, got {describe(params.b)}"
            )
        return lora_linear_forward(x, *params, scale=scale, residuals=residuals)

    def backward(residuals, dy):
        dx, *dparams = lora_linear_backward(residuals, dy, scale=scale)
        return dx, LoraParams(*dparams)

    return Layer(init, forward, backward)


def add_lora(
    key: Array, params: LinearParams, rank: int, *, init_A: Initializer = jax.nn.initializers.lecun_normal()
) -> LoraParams:
    """Adapters for a linear layer that has learned already: what it computes stays the same, for B is zero.

    Args:
      key: for A.
      params: LinearParams.
      rank: columns of A, rows of B.
      init_A: initializer, (key, shape, dtype) -> array.
    Raises:
      InputError: params of another layer; rank is not a positive integer.
    """
    check_params("add_lora", params, LinearParams)
    check_count("add_lora", "rank", rank)
    (n_in, n_out), dtype = params.W.shape, params.W.dtype
    return LoraParams(params.W, init_A(key, (n_in, rank), dtype), jnp.zeros((rank, n_out), dtype), params.b)


def merge_lora(params: LoraParams, *, alpha: float | None = None) -> LinearParams:
    """The linear layer that computes the same: W + (α / rank) A B.

    Args:
      params: LoraParams.
      alpha: the layer's.
    Raises:
      InputError: params of another layer; alpha not positive.
    """
    check_params("merge_lora", params, LoraParams)
    scale = _scale("merge_lora", params.A.shape[1], alpha)
    return LinearParams((params.W + scale * jnp.matmul(params.A, params.B)).astype(params.W.dtype), params.b)


def is_adapter(params: Any) -> Any:
    """True in the place of each A and B of a LoraParams, False in the place of every other parameter.

    Args:
      params: any model's params.
    """

    def mask(node):
        if isinstance(node, LoraParams):
            return LoraParams(False, True, True, None if node.b is None else False)
        return False

    return jax.tree.map(mask, params, is_leaf=lambda node: isinstance(node, LoraParams))


def _scale(where: str, rank: int, alpha: float | None) -> float:
    if alpha is None:
        return 1.0
    check_positive(where, "alpha", alpha)
    return float(alpha) / rank
