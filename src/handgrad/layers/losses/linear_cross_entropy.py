"""projection and linear_cross_entropy: a head that leaves its last product to the loss."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, describe
from handgrad.layers.layer import Layer, Loss
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.losses._padding import of_sequences
from handgrad.layers.losses.softmax_cross_entropy import softmax_cross_entropy
from handgrad.layers.sequences.embedding import SMALL, EmbeddingParams, tied_head
from handgrad.layers.sequences.sequences import Sequences
from handgrad.rule import Rule
from handgrad.rules.losses._projected import Weight, product_backward, unrounded_logits
from handgrad.rules.losses._targets import is_ignored

__all__ = ["Projection", "linear_cross_entropy", "projection", "tied_projection"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Projection:
    """Logits X W + 1 bᵀ, not yet multiplied. In its cotangent, W and b are factors.

    Attributes:
      X: what is projected.
      W: weights.
      b: bias, or None.
      transposed: W is (n, n_in), as an embedding's table is, and the logits are X Wᵀ + 1 bᵀ.
    """

    X: Float[Array, "batch *tokens n_in"]
    W: Weight
    b: Float[Array, " n"] | None = None
    transposed: bool = field(default=False, metadata={"static": True})

    @property
    def arrays(self) -> tuple[PyTree, PyTree, PyTree]:
        """X, W and b; of a cotangent, factors."""
        return self.X, self.W, self.b

    def like(self, X: PyTree, W: PyTree, b: PyTree) -> "Projection":
        """A projection of the same form."""
        return replace(self, X=X, W=W, b=b)


def projection(
    n_out: int,
    *,
    bias: bool = True,
    n_in: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
    init_b: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """`linear`, its product left to the loss: y is Projection(X, W, b), for `linear_cross_entropy`.

    Its parameters are linear's own, LinearParams(W, b): with `linear(n_out)` in its place the same params give logits.

    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    multiplied = linear(n_out, bias=bias, n_in=n_in, init_W=init_W, init_b=init_b)

    def forward(params, x, key=None):
        jax.eval_shape(multiplied.forward, params, x)  # for its checks; nothing is computed
        return Projection(x, params.W, params.b), ()

    def backward(residuals, dy):
        check_projection("projection", "dy", dy)
        return dy.X, LinearParams(dy.W, dy.b)

    return Layer(multiplied.init, forward, backward)


def tied_projection(rows: int, *, init_table: Initializer = SMALL) -> Layer:
    """`tied_head`, its product left to the loss: y is Projection(X, table, transposed=True).

    Its parameters are tied_head's own, EmbeddingParams(table). `tied_embedding(..., head="projection")` makes them an
    embedding's.

    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """
    multiplied = tied_head(rows, init_table=init_table)

    def forward(params, x, key=None):
        jax.eval_shape(multiplied.forward, params, x)  # for its checks; nothing is computed
        return Projection(x, params.table, transposed=True), ()

    def backward(residuals, dy):
        check_projection("tied_projection", "dy", dy)
        return dy.X, EmbeddingParams(dy.W)

    return Layer(multiplied.init, forward, backward)


def linear_cross_entropy(
    *,
    chunk: int = 256,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Loss:
    """softmax_cross_entropy of a `projection`'s logits against labels, `chunk` tokens' logits at a time.

    `chain(..., projection(n))` under this loss is `chain(..., linear(n))` under softmax_cross_entropy, and (tokens, n)
    is never materialized. Curvature, a fold over the same two, does materialize the logits. As there, the loss of an
    example is the sum over its tokens, and Sequences of a Projection have one in their own steps alone.

    Derivation: docs/derivations/losses/linear_cross_entropy.md
    """

    def make(ignore_index: int | None) -> Loss:
        options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap}
        return _of_projection(chunk, ignore_index=ignore_index, **options)

    loss = of_sequences("linear_cross_entropy", make, ignore_index)
    of_logits = softmax_cross_entropy(label_smoothing, ignore_index=ignore_index, z_loss=z_loss, softcap=softcap)
    return loss._replace(through=(_multiplied("linear_cross_entropy"), of_logits))


def _of_projection(chunk: int, **options: Any) -> Loss:
    """The loss of one Projection."""
    where = "linear_cross_entropy"
    forward, backward = of_projection(where, rules.linear_cross_entropy.with_options(chunk=chunk, **options))

    def at_once(prediction: Projection, target: Array, dloss: Array) -> tuple[Array, Projection]:
        check_projection(where, "prediction", prediction)
        losses, cotangents = rules.linear_cross_entropy_at_once(
            *prediction.arrays, target, dloss, chunk=chunk, transposed=prediction.transposed, **options
        )
        return losses, prediction.like(*cotangents)

    return Loss(forward, backward, at_once=at_once, counts=counts(options["ignore_index"]))


def of_projection(
    where: str, rule: Rule[..., Array]
) -> tuple[
    Callable[[Projection, PyTree], tuple[Array, tuple[PyTree, Projection]]],
    Callable[[tuple[PyTree, Projection], Array], Projection],
]:
    """The passes of a rule of (X, W, b, Y) as passes of (prediction, Y): a Projection's arrays for the first three."""

    def forward(prediction: Projection, Y: Array) -> tuple[Array, tuple[PyTree, Projection]]:
        check_projection(where, "prediction", prediction)
        y, kept = rule.forward(*prediction.arrays, Y, transposed=prediction.transposed)
        return y, (kept, prediction.like(None, None, None))

    def backward(residuals: tuple[PyTree, Projection], dy: Array) -> Projection:
        kept, form = residuals
        return form.like(*rule.backward(kept, dy, transposed=form.transposed)[:3])

    return forward, backward


def counts(ignore_index: int | None) -> Callable[[tuple[PyTree, ...]], Array] | None:
    """A Loss's `counts`, of residuals that begin with those of `of_projection`'s rule."""
    return None if ignore_index is None else lambda residuals: ~is_ignored(residuals[0].Y, ignore_index)


def check_projection(where: str, name: str, value: object) -> None:
    """`value` is a Projection."""
    if not isinstance(value, Projection):
        raise InputError(f"{where}: {name} must be a Projection, got {describe(value)}")


def _multiplied(where: str) -> Layer:
    """A Projection's logits, unrounded: what curvature puts between a `projection` and its loss. Of Sequences of one,
    Sequences of logits."""

    def forward(params: tuple[()], prediction: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, Projection]:
        projected: Projection = prediction.X if isinstance(prediction, Sequences) else prediction
        check_projection(where, "prediction", projected)
        X, W, b = projected.arrays
        logits = unrounded_logits(X, W, b, projected.transposed)
        return prediction._replace(X=logits) if isinstance(prediction, Sequences) else logits, projected

    def backward(projected: Projection, dy: PyTree) -> tuple[PyTree, tuple[()]]:
        dlogits = dy.X if isinstance(dy, Sequences) else dy
        dlogits = dlogits.astype(jnp.result_type(*jax.tree.leaves(projected)))
        dprojected = projected.like(*product_backward(*projected.arrays, dlogits, projected.transposed))
        return Sequences(dprojected) if isinstance(dy, Sequences) else dprojected, ()

    return Layer(lambda key, x: (), forward, backward)
