"""JAX's primitives in NumPy: nothing is compiled, and an operation on a small array takes microseconds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.crosscheck.numerics.arrays import ARRANGED, Rule, cast

KEPT = 64  # programs
_COMPILED: dict[int, tuple[dict[str, Any], Callable[..., Any]]] = {}  # {id of the parameters: (they, the program)}


def evaluate(primitive: Any, inputs: Sequence[Any], params: dict[str, Any], dtypes: Sequence[Any]) -> list[Any]:
    """The outputs of one equation.

    Tracers and primitives without a rule here go through JAX itself. With 16-bit floats NumPy computes in float32, as
    XLA does, and rounds once.

    Args:
      dtypes: of the outputs.
    """
    rule = RULES.get(primitive.name)
    if rule is None or not all(_plain(x) for x in inputs):
        outputs = _bound(primitive, params, any(isinstance(x, Tracer) for x in inputs))(*inputs)
        return outputs if any(isinstance(y, Tracer) for y in outputs) else [_concrete(y) for y in outputs]
    with np.errstate(all="ignore"):
        outputs = rule([x.astype(np.float32) if _is_half(x) else x for x in inputs], params)
    outputs = outputs if primitive.multiple_results else [outputs]
    return [cast(y, dtype) for y, dtype in zip(outputs, dtypes, strict=True)]


def _bound(primitive: Any, params: dict[str, Any], traced: bool) -> Callable[..., list[Any]]:
    """A primitive as a function of its inputs, which returns a list.

    What calls a function, as shard_map or a custom_jvp, holds a jaxpr where bind takes the function: another one each
    time, for which JAX would compile each time anew.
    """
    given = primitive.get_bind_params(params) if params else {}

    def bound(*inputs: Any) -> list[Any]:
        outputs = primitive.bind(*inputs, **given)
        return list(outputs) if primitive.multiple_results else [outputs]

    if traced or "subfuns" not in given:
        return bound
    if id(params) not in _COMPILED:
        if len(_COMPILED) >= KEPT:
            _COMPILED.clear()
        _COMPILED[id(params)] = params, jax.jit(bound)
    return _COMPILED[id(params)][1]


def _plain(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic) and (x.dtype.kind in "biuc" or x.dtype.char in "fd" or _is_half(x))


def _is_half(x: Any) -> bool:
    return x.dtype.name in ("bfloat16", "float16")


def _concrete(y: Any) -> Any:
    return y if jnp.issubdtype(y.dtype, jax.dtypes.extended) else np.asarray(y)


def _round(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    x = inputs[0]
    return np.round(x) if int(params["rounding_method"]) == 1 else np.copysign(np.floor(np.abs(x) + 0.5), x)


def _sign(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    x = inputs[0]
    return np.sign(x) if x.dtype.kind != "c" else np.where(x == 0, 0, x / np.abs(x))


def _plainly(function: Callable[..., Any]) -> Rule:
    """A function of the inputs alone."""
    return lambda inputs, params: function(*inputs)


def _special(name: str) -> Callable[..., Any]:
    """A function of scipy.special, which takes a second to import."""

    def function(x: Any) -> Any:
        from scipy import special

        return getattr(special, name)(x)

    return function


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "complex": lambda x, y: x + 1j * y,
    "conj": np.conj,
    "copy": np.copy,
    "cos": np.cos,
    "cosh": np.cosh,
    "digamma": _special("digamma"),
    "eq": np.equal,
    "erf": _special("erf"),
    "erf_inv": _special("erfinv"),
    "erfc": _special("erfc"),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "imag": np.imag,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "lgamma": _special("gammaln"),
    "log": np.log,
    "log1p": np.log1p,
    "logistic": lambda x: 1 / (1 + np.exp(-x)) if np.iscomplexobj(x) else _special("expit")(x),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "real": np.real,
    "rem": np.fmod,
    "return": lambda x: x,  # the end of a program: see program.py
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "xor": np.bitwise_xor,
}
RULES: dict[str, Rule] = {
    **ARRANGED,
    **{name: _plainly(function) for name, function in FUNCTIONS.items()},
    "div": lambda inputs, params: np.divide(*inputs) if inputs[0].dtype.kind in "fc" else _truncated(*inputs),
    "integer_pow": lambda inputs, params: (
        inputs[0] ** params["y"] if params["y"] >= 0 else 1 / inputs[0] ** -params["y"]
    ),
    "round": _round,
    "sign": _sign,
}


def _truncated(a: Any, b: Any) -> Any:
    """Integers divide towards zero."""
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.where(b == 0, 1, np.abs(b)))).astype(a.dtype)


def constants_and_carry(params: dict[str, Any]) -> tuple[int, int]:
    """How many of a scan's inputs are constants, and how many are carried: JAX 0.12 counts them in a tree."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()
    return len(constants.vals), len(carry.vals)
