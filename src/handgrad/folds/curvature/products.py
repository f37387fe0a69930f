"""Products with the GGN and with the Hessian: linearized once, then applied to any number of vectors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from handgrad.backprop import Key, Weights, check_batches, grad, materialize, mean_weights
from handgrad.folds.curvature._tangents import check_like_params
from handgrad.folds.curvature.roots import check_prediction, through_logits
from handgrad.layers import Layer, Loss
from handgrad.layers.layer import check_layer, check_loss
from handgrad.layers.sums import sums_only

Product = Callable[[PyTree], PyTree]


def ggn_vector_product(
    model: Layer, loss: Loss, params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None
) -> Product:
    """v -> Jᵀ H J v, the product with the generalized Gauss-Newton matrix of Σ_b w_b loss_b.

    J is the prediction's Jacobian by params, H = diag(w_b H_b) the Hessian of the loss by the prediction. J v comes
    from a linearization of the forward pass, H v from one of the loss's backward pass, and Jᵀ is the model's backward
    pass. Both linearizations are made here, once; the product that is returned is linear.

    It is a pytree (`jax.tree_util.Partial`), so that compiled functions can take and return it. Compile its caller, and
    it runs in a while loop: `jax.scipy.sparse.linalg.cg(product, grads)`. For one program that serves all parameters,
    compile the linearization too: `jax.jit(partial(ggn_vector_product, model, loss))(params, x, target)`.

    Args:
      model, loss, params, x, target, weights: as `objective`. The GGN is positive semi-definite where the loss is
        convex in the prediction; for `linear_cross_entropy` that is the logits, which are materialized here.
      key: for layers that draw noise: one draw, the same in every product.
    Returns:
      v -> the product; both like params. v of another floating-point dtype is cast to params'.
    Raises:
      InputError: as `objective`; v is not like params.
    Derivation: docs/curvature.md (Schraudolph 2002, https://doi.org/10.1162/08997660260028683)
    """
    check_layer("ggn_vector_product", model)
    check_loss("ggn_vector_product", loss)
    model, loss = through_logits(model, loss)
    params, x, target, weights = check_batches("ggn_vector_product", params, x, target, weights)

    def slope(prediction: PyTree) -> PyTree:
        losses, residuals = loss.forward(prediction, target)
        return loss.backward(residuals, mean_weights(losses) if weights is None else weights.astype(losses.dtype))

    prediction, of_model, residuals = jax.linearize(lambda p: model.forward(p, x, key), params, has_aux=True)
    check_prediction("ggn_vector_product", prediction)
    _, of_slope = jax.linearize(slope, prediction)

    def product(kept: PyTree, v: PyTree) -> PyTree:
        of_model, of_slope, residuals = kept
        return materialize(model.backward(sums_only(residuals), of_slope(of_model(v)))[1])

    return _product("ggn_vector_product", product, (of_model, of_slope, residuals), params)


def hessian_vector_product(
    model: Layer, loss: Loss, params: PyTree, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None
) -> Product:
    """v -> ∇²(Σ_b w_b loss_b) v, the product with the Hessian of the objective.

    Forward over our reverse: the hand-written gradient, linearized once.

    Args, Returns, Raises: as `ggn_vector_product`. The Hessian is symmetric, and need not be positive.
    Derivation: docs/curvature.md (Pearlmutter 1994, https://doi.org/10.1162/neco.1994.6.1.147)
    """
    check_layer("hessian_vector_product", model)
    check_loss("hessian_vector_product", loss)
    params, x, target, weights = check_batches("hessian_vector_product", params, x, target, weights)
    gradient = grad(model, loss)
    _, of_gradient = jax.linearize(lambda p: gradient(p, x, target, weights, key), params)
    return _product("hessian_vector_product", lambda of_gradient, v: of_gradient(v), of_gradient, params)


def _product(where: str, product: Callable[[PyTree, PyTree], PyTree], kept: PyTree, params: PyTree) -> Product:
    """v -> product(kept, v), a pytree of what is kept, each array once.

    (A weight is among the residuals of the hand-written pass and of the linearization; a compiled function that returns
    both would copy it.)
    """
    leaves, structure = jax.tree.flatten(kept)
    distinct = list({id(leaf): leaf for leaf in leaves}.values())
    place = {id(leaf): i for i, leaf in enumerate(distinct)}
    places = [place[id(leaf)] for leaf in leaves]
    like = jax.eval_shape(lambda p: p, params)

    def multiply(distinct: list[Array], v: PyTree) -> PyTree:
        kept = jax.tree.unflatten(structure, [distinct[i] for i in places])
        return product(kept, _as_tangent(where, v, like))

    return Partial(multiply, distinct)


def _as_tangent(where: str, v: PyTree, params: PyTree) -> PyTree:
    """v, like params in structure and shapes, in params' dtypes."""
    check_like_params(where, v, params)
    return jax.tree.map(lambda tangent, p: jnp.asarray(tangent).astype(p.dtype), v, params)
