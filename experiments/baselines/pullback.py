"""A function's result and its pullback, as one function of the arguments and the result's cotangent."""

from collections.abc import Callable
from typing import Any

import jax


def pullback(function: Callable[..., Any], *others: int) -> Callable[..., Any]:
    """(*arguments, dY) -> (Y, cotangents of all arguments but those at the places `others`)."""

    def both(*arguments: Any) -> tuple[Any, tuple[Any, ...]]:
        *primals, dY = arguments
        places = [i for i in range(len(primals)) if i not in others]

        def of_these(*these: Any) -> Any:
            filled = dict(zip(places, these, strict=True))
            return function(*(filled.get(i, primal) for i, primal in enumerate(primals)))

        Y, pull = jax.vjp(of_these, *(primals[i] for i in places))
        return Y, pull(dY)

    return both
