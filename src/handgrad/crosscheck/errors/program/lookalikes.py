"""Functions that are mistaken for one another, by the names of JAX's primitives."""

from collections.abc import Callable
from typing import Any

# What may be left out where its result has its operand's shape and dtype.
_UNARY = """
    neg transpose rev conj exp exp2 expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh logistic
    erf erfc erf_inv sqrt rsqrt cbrt square integer_pow abs sign lgamma digamma floor ceil round not cumsum cumprod
    cummax cummin cumlogsumexp
"""
UNARY = frozenset(_UNARY.split())

Function = Callable[[Any, Any], Any]  # (numpy or jax.numpy, x) -> another function of x


def _named(name: str) -> tuple[str, Function]:
    return name, lambda xp, x: getattr(xp, name)(x)


_EXP, _EXPM1, _LOG, _LOG1P, _SIN, _COS = map(_named, ("exp", "expm1", "log", "log1p", "sin", "cos"))
_TANH, _SQRT, _ABS, _SIGN, _REAL, _IMAG = map(_named, ("tanh", "sqrt", "abs", "sign", "real", "imag"))
_LOGISTIC: tuple[str, Function] = ("logistic", lambda xp, x: 1 / (1 + xp.exp(-x)))
_RSQRT: tuple[str, Function] = ("rsqrt", lambda xp, x: 1 / xp.sqrt(x))
_SQUARE: tuple[str, Function] = ("the square", lambda xp, x: x * x)
_CUBE: tuple[str, Function] = ("the cube", lambda xp, x: x * x * x)
_SINH, _COSH = map(_named, ("sinh", "cosh"))

MISTAKEN: dict[str, tuple[tuple[str, Function], ...]] = {
    "exp": (_EXPM1, _LOG, ("exp of minus that", lambda xp, x: xp.exp(-x))),
    "expm1": (_EXP,),
    "log": (_LOG1P, _EXP),
    "log1p": (_LOG,),
    "sin": (_COS,),
    "cos": (_SIN,),
    "sinh": (_COSH,),
    "cosh": (_SINH,),
    "tanh": (_LOGISTIC,),
    "logistic": (_TANH, ("logistic of minus that", lambda xp, x: 1 / (1 + xp.exp(x)))),
    "sqrt": (_RSQRT, _SQUARE),
    "rsqrt": (_SQRT, ("the reciprocal", lambda xp, x: 1 / x)),
    "abs": (_SIGN,),
    "sign": (_ABS,),
    "square": (_CUBE, _SQRT),
    "real": (_IMAG,),
    "imag": (_REAL,),
}

OTHER_OF_TWO: dict[str, tuple[str, Callable[[Any, Any, Any], Any]]] = {
    "max": ("min", lambda xp, a, b: xp.minimum(a, b)),
    "min": ("max", lambda xp, a, b: xp.maximum(a, b)),
    "and": ("or", lambda xp, a, b: a | b),
    "or": ("and", lambda xp, a, b: a & b),
}

# ≥ for > would be another function only at a tie.
FLIPPED: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "gt": ("<", lambda a, b: a < b),
    "lt": (">", lambda a, b: a > b),
    "ge": ("≤", lambda a, b: a <= b),
    "le": ("≥", lambda a, b: a >= b),
    "eq": ("≠", lambda a, b: a != b),
    "ne": ("=", lambda a, b: a == b),
}
