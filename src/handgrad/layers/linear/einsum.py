"""einsum: a layer of one parameter, contracted with its input by any einsum."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad.checks import check_array, check_count, check_params, check_shape
from handgrad.layers.layer import Layer
from handgrad.rules.linear._subscripts import read
from handgrad.rules.linear.einsum import ContractionResiduals, contraction_backward, contraction_forward

__all__ = ["EinsumParams", "einsum"]

Initializer = jax.nn.initializers.Initializer
Tensor = Float[Array, "batch ..."]


class EinsumParams(NamedTuple):
    """Parameters of `einsum`.

    Attributes:
      W: one axis for each of its letters.
    """

    W: Array


def einsum(subscripts: str, shape: Sequence[int], *, init_W: Initializer | None = None) -> Layer:
    """Y = einsum(subscripts, X, W), with parameters EinsumParams(W): low-rank layers, one matrix for each head, ...

    Args:
      subscripts: "bti,io->bto", "bthi,hio->btho", ...; the first letter of X and of Y is the example.
      shape: W's.
      init_W: initializer, (key, shape, dtype) -> array; None: normal numbers whose variance is 1 / the number of
        products that each element of Y sums over W, as lecun_normal's for a matrix.
    Derivation: docs/derivations/linear/einsum.md
    """
    for size in shape:
        check_count("einsum", "each size in shape", size)

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> EinsumParams:
        check_array("einsum", "x", x, min_ndim=1)
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        W = jax.ShapeDtypeStruct(tuple(shape), dtype)
        jax.eval_shape(lambda x, W: contraction_forward(x, W, subscripts=subscripts), x, W)  # it fits
        return EinsumParams((init_W or _initializer(*read("einsum", subscripts, X=x, W=W)))(key, W.shape, dtype))

    def forward(
        params: EinsumParams, x: Tensor, key: PRNGKeyArray | None = None
    ) -> tuple[Tensor, ContractionResiduals]:
        check_params("einsum", params, EinsumParams)
        check_shape("einsum", "params.W", params.W, tuple(shape))
        return contraction_forward(x, params.W, subscripts=subscripts)

    def backward(residuals: ContractionResiduals, dy: Tensor) -> tuple[Tensor, EinsumParams]:
        dx, *dparams = contraction_backward(residuals, dy, subscripts=subscripts)
        return dx, EinsumParams._make(dparams)

    return Layer(init, forward, backward)


def _initializer(x: str, w: str, y: str) -> Initializer:
    """lecun_normal over the axes of W that are summed; axes that X has too and Y keeps are a batch of matrices."""
    summed = tuple(i for i, letter in enumerate(w) if letter not in y)
    beside = tuple(i for i, letter in enumerate(w) if letter in y and letter in x)
    fresh = tuple(i for i, letter in enumerate(w) if letter not in x)
    return jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", summed, fresh, beside)
