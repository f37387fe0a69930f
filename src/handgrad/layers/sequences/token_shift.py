"""token_shift as a layer."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad import rules
from handgrad.checks import check_array, check_params
from handgrad.layers.layer import Layer

__all__ = ["TokenShiftParams", "token_shift"]

Tokens = Float[Array, "batch tokens n"]


class TokenShiftParams(NamedTuple):
    """Parameters of `token_shift`.

    Attributes:
      mu: (n,) share of the token before in each feature.
    """

    mu: Array


def token_shift(*, init_mu: jax.nn.initializers.Initializer = jax.nn.initializers.constant(0.5)) -> Layer:
    """y_t = (1 − μ) ∘ x_t + μ ∘ x_{t−1}, from zeros, with parameters TokenShiftParams(mu).

    Args:
      init_mu: initializer, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/token_shift.md
    """

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> TokenShiftParams:
        check_array("token_shift", "x", x, min_ndim=2)
        return TokenShiftParams(init_mu(key, x.shape[-1:], jax.dtypes.canonicalize_dtype(x.dtype)))

    def forward(
        params: TokenShiftParams, x: Tokens, key: PRNGKeyArray | None = None
    ) -> tuple[Tokens, rules.TokenShiftResiduals]:
        check_params("token_shift", params, TokenShiftParams)
        return rules.token_shift.forward(x, params.mu)

    def backward(residuals: rules.TokenShiftResiduals, dy: Tokens) -> tuple[Tokens, TokenShiftParams]:
        dx, dmu, _ = rules.token_shift.backward(residuals, dy)
        return dx, TokenShiftParams._make([dmu])

    return Layer(init, forward, backward)
