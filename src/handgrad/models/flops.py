"""How many operations a program asks for, counted on its jaxpr: nothing is compiled."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree


def product_flops(function: Callable[..., PyTree], *arguments: PyTree) -> int:
    """Multiplications and additions of this function's matrix products and convolutions; loops count every turn.

    2 m k n for a product of (m, k) and (k, n). A convolution is, for each output or for each input, whichever are
    fewer, a product with the whole kernel: padding counts, zeros between dilated inputs don't. A branch counts as its
    longest one. What a while loop of unknown length repeats is counted once.

        >>> import jax.numpy as jnp
        >>> product_flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
        60

    Args:
      function: traced, not run.
      *arguments: arrays or ShapeDtypeStructs.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (summed, _), _ = params["dimension_numbers"]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in summed)
        elif name == "conv_general_dilated":
            kernel, spec = eqn.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
            taps = math.prod(kernel[i] for i in spec[2:])
            inputs = math.prod(eqn.invars[0].aval.shape) * kernel[spec[0]] // params["feature_group_count"]
            total += 2 * taps * min(math.prod(eqn.outvars[0].aval.shape) * kernel[spec[1]], inputs)
        elif name == "cond":
            total += max(_flops(branch.jaxpr) for branch in params["branches"])
        else:
            turns = params["length"] if name == "scan" else 1
            inner = (getattr(value, "jaxpr", value) for value in params.values())
            total += turns * sum(_flops(one) for one in inner if hasattr(one, "eqns"))
    return total
