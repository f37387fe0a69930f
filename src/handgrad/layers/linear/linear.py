"""linear: the layer that most parameters live in."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad.checks import InputError, check_array, check_count, check_params, check_shape, describe
from handgrad.layers.layer import Layer
from handgrad.rules.linear.linear import LinearResiduals, linear_backward, linear_forward

__all__ = ["LinearParams", "linear"]

Initializer = jax.nn.initializers.Initializer


class LinearParams(NamedTuple):
    """Parameters of `linear`.

    Attributes:
      W: (n_in, n_out) weights.
      b: (n_out,) bias, or None.
    """

    W: Array
    b: Array | None = None


def linear(
    n_out: int,
    *,
    bias: bool = True,
    n_in: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """Y = X W + 1 bᵀ, with parameters LinearParams(W, b).

    Args:
      n_out: output features.
      bias: False omits b.
      n_in: input features; None takes them from the x of `init`.
      init_W, init_b: initializers, (key, shape, dtype) -> array; parameters get the dtype of `init`'s x.
    Derivation: docs/derivations/linear/linear.md
    """
    check_count("linear", "n_out", n_out)
    if n_in is not None:
        check_count("linear", "n_in", n_in)

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> LinearParams:
        check_is_no_sequences("linear", x)
        check_array("linear", "x", x, min_ndim=2)
        if n_in not in (None, x.shape[-1]):
            raise InputError(f"linear: x must have {n_in} features, got {describe(x)}")
        key_W, key_b = jax.random.split(key)
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        W = init_W(key_W, (x.shape[-1], n_out), dtype)
        return LinearParams(W, init_b(key_b, (n_out,), dtype) if bias else None)

    def forward(
        params: LinearParams, x: Float[Array, "batch *rest n_in"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "batch *rest n_out"], LinearResiduals]:
        check_params("linear", params, LinearParams)
        check_array("linear", "params.W", params.W, min_ndim=2)
        check_shape("linear", "params.W", params.W, (n_in or params.W.shape[0], n_out), "(n_in, n_out)")
        check_bias("linear", params.b, bias)
        check_is_no_sequences("linear", x)
        return linear_forward(x, params.W, params.b)

    def backward(
        residuals: LinearResiduals, dy: Float[Array, "batch *rest n_out"]
    ) -> tuple[Float[Array, "batch *rest n_in"], LinearParams]:
        dx, *dparams = linear_backward(residuals, dy)
        return dx, LinearParams._make(dparams)

    return Layer(init, forward, backward)


def check_is_no_sequences(where: str, x: object) -> None:
    """Sequences, which are known further up, are refused with the layer that takes them."""
    if type(x).__name__ == "Sequences":
        raise InputError(f"{where}: x must be an array, got Sequences: each_step({where}(...)) takes them")


def check_bias(where: str, b: Array | None, wanted: bool) -> None:
    """`b` is there where the layer has a bias, and None where it has none."""
    if (b is not None) != wanted:
        raise InputError(f"{where}: params.b must be {'an array' if wanted else 'None'}, got {describe(b)}")
