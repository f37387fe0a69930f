"""lora_linear: a linear layer whose change is a product of two thin matrices."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.checks import check_array, check_count, check_params, check_positive, check_shape
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import LinearParams, check_bias
from handgrad.rules.linear.lora import LoraLinearResiduals, lora_linear_backward, lora_linear_forward

__all__ = ["LoraParams", "add_lora", "is_adapter", "lora_linear", "merge_lora"]

Initializer = jax.nn.initializers.Initializer


class LoraParams(NamedTuple):
    """Parameters of `lora_linear`.

    Attributes:
      W: (n_in, n_out) weights.
      A: (n_in, rank) first adapter.
      B: (rank, n_out) second adapter, zero to begin with.
      b: (n_out,) bias, or None.
    """

    W: Array
    A: Array
    B: Array
    b: Array | None = None


def lora_linear(
    n_out: int,
    *,
    rank: int,
    alpha: float | None = None,
    bias: bool = True,
    residuals: Literal["save", "recompute"] = "save",
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
    init_A: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """Y = X W + (α / rank) (X A) B + 1 bᵀ, with parameters LoraParams(W, A, B, b). B begins at zero: Y = X W + 1 bᵀ.

    Every parameter has a gradient, W's too, as a factor. What is learned is the optimizer's choice: `is_adapter` says
    which leaves the adapters are, for optax.masked or optax.multi_transform. A gradient that a jitted step does not use
    is never multiplied out, so a frozen W costs no product.

    Args:
      n_out: output features.
      rank: columns of A, rows of B.
      alpha: α; None stands for rank, so that the product counts once.
      bias: False omits b.
      residuals: "save" keeps X A, "recompute" recomputes it.
      init_W, init_A, init_b: initializers, (key, shape, dtype) -> array; parameters get the dtype of `init`'s x.
    Derivation: docs/derivations/linear/lora.md (Hu et al., 2021)
    """
    check_count("lora_linear", "n_out", n_out)
    check_count("lora_linear", "rank", rank)
    scale = _scale("lora_linear", rank, alpha)

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> LoraParams:
        check_array("lora_linear", "x", x, min_ndim=2)
        key_W, key_b, key_A = jax.random.split(key, 3)
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        W = init_W(key_W, (x.shape[-1], n_out), dtype)
        b = init_b(key_b, (n_out,), dtype) if bias else None
        return add_lora(key_A, LinearParams(W, b), rank, init_A=init_A)

    def forward(
        params: LoraParams, x: Float[Array, "batch *rest n_in"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "batch *rest n_out"], LoraLinearResiduals]:
        check_params("lora_linear", params, LoraParams)
        check_array("lora_linear", "params.W", params.W, min_ndim=2)
        n_in = params.W.shape[0]
        for name, leaf, shape in (("W", params.W, (n_in, n_out)), ("A", params.A, (n_in, rank))):
            check_shape("lora_linear", f"params.{name}", leaf, shape)
        check_bias("lora_linear", params.b, bias)
        return lora_linear_forward(x, *params, scale=scale, residuals=residuals)

    def backward(
        residuals: LoraLinearResiduals, dy: Float[Array, "batch *rest n_out"]
    ) -> tuple[Float[Array, "batch *rest n_in"], LoraParams]:
        dx, *dparams = lora_linear_backward(residuals, dy, scale=scale)
        return dx, LoraParams._make(dparams)

    return Layer(init, forward, backward)


def add_lora(
    key: PRNGKeyArray, params: LinearParams, rank: int, *, init_A: Initializer = jax.nn.initializers.lecun_normal()
) -> LoraParams:
    """Adapters of this rank for a trained linear layer; what it computes stays the same, for B is zero."""
    check_params("add_lora", params, LinearParams)
    check_count("add_lora", "rank", rank)
    (n_in, n_out), dtype = params.W.shape, params.W.dtype
    return LoraParams(params.W, init_A(key, (n_in, rank), dtype), jnp.zeros((rank, n_out), dtype), params.b)


def merge_lora(params: LoraParams, *, alpha: float | None = None) -> LinearParams:
    """The linear layer that computes the same, with W + (α / rank) A B; `alpha` is the layer's."""
    check_params("merge_lora", params, LoraParams)
    scale = _scale("merge_lora", params.A.shape[1], alpha)
    return LinearParams((params.W + scale * jnp.matmul(params.A, params.B)).astype(params.W.dtype), params.b)


def is_adapter(params: PyTree) -> PyTree:
    """A mask of any model's params: True for each A and B of a LoraParams, False for every other parameter."""

    def mask(node: PyTree) -> PyTree:
        if isinstance(node, LoraParams):
            return LoraParams._make((False, True, True, None if node.b is None else False))
        return False

    return jax.tree.map(mask, params, is_leaf=lambda node: isinstance(node, LoraParams))


def _scale(where: str, rank: int, alpha: float | None) -> float:
    if alpha is None:
        return 1.0
    check_positive(where, "alpha", alpha)
    return float(alpha) / rank
