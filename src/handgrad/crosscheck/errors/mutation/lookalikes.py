"""Functions that are mistaken for one another, by the names of JAX's primitives."""

from collections.abc import Callable
from typing import Any

import numpy as np

# What may be left out where its result has its operand's shape and dtype.
_UNARY = """
    neg transpose rev conj exp exp2 expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh logistic
    erf erfc erf_inv sqrt rsqrt cbrt square integer_pow abs sign lgamma digamma floor ceil round not cumsum cumprod
    cummax cummin cumlogsumexp
"""
UNARY = frozenset(_UNARY.split())

# (the other's name, (x, y) -> the other function of x, where y is the right one)
MISTAKEN: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "exp": ("expm1", lambda x, y: np.expm1(x)),
    "expm1": ("exp", lambda x, y: np.exp(x)),
    "log": ("log1p", lambda x, y: np.log1p(x)),
    "log1p": ("log", lambda x, y: np.log(x)),
    "sin": ("cos", lambda x, y: np.cos(x)),
    "cos": ("sin", lambda x, y: np.sin(x)),
    "tanh": ("logistic", lambda x, y: 1 / (1 + np.exp(-x))),
    "logistic": ("tanh", lambda x, y: np.tanh(x)),
    "erf": ("erfc", lambda x, y: 1 - y),
    "erfc": ("erf", lambda x, y: 1 - y),
    "sqrt": ("rsqrt", lambda x, y: 1 / y),
    "rsqrt": ("sqrt", lambda x, y: 1 / y),
    "abs": ("sign", lambda x, y: np.sign(x)),
    "sign": ("abs", lambda x, y: np.abs(x)),
    "square": ("cube", lambda x, y: x**3),
    "real": ("imag", lambda x, y: np.imag(x)),
    "imag": ("real", lambda x, y: np.real(x)),
}

OTHER_OF_TWO: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "max": ("min", np.minimum),
    "min": ("max", np.maximum),
    "and": ("or", np.bitwise_or),
    "or": ("and", np.bitwise_and),
}

# ≥ for > would be another function only at a tie.
FLIPPED: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "gt": ("<", np.less),
    "lt": (">", np.greater),
    "ge": ("≤", np.less_equal),
    "le": ("≥", np.greater_equal),
    "eq": ("≠", np.not_equal),
    "ne": ("=", np.equal),
}
