"""handgrad check on a user's own code: from the names on the command line to a report."""

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import InputError, describe
from handgrad.crosscheck import Report, check_custom_vjp, check_layer, check_rule

MISSING = object()
FORMS = "a jax.custom_vjp function, a layer (init, forward, backward) or a rule: a (forward, backward) pair"


class Request(NamedTuple):
    """What the command line says about a target.

    Attributes:
      target: "package.module:name".
      args: "module:function" that returns the arguments, or "".
      shapes: "5,7;7,3;3" for normal numbers, or "".
      reference: "module:function", or "".
      dtype: of floating-point arguments; None: as `args` returns them, float32 for `shapes`.
      seed: of all that is random.
      search: whether to look for inputs that make it fail.
    """

    target: str
    args: str = ""
    shapes: str = ""
    reference: str = ""
    dtype: str | None = None
    seed: int = 0
    search: bool = False


def check_target(request: Request) -> Report:
    """Import, draw the inputs, check.

    Raises:
      InputError: the command line is wrong; the sentence says where.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current directory, as `python -m` has it
    form, parts = recognize(request.target, with_reference=bool(request.reference))
    reference = load("reference", request.reference) if request.reference else None
    if reference is not None and not callable(reference):
        raise InputError(f"check: reference must be a function, got {describe(reference)}")
    if bool(request.args) == bool(request.shapes):
        raise InputError("check: a target needs its inputs, by args or by shapes, and by one of them")
    arguments = from_function(request) if request.args else from_shapes(request)
    settings: dict[str, Any] = {
        "name": request.target,
        "seed": request.seed,
        "dtype": None if request.dtype is None else jnp.dtype(request.dtype),
        "search": request.search,
        "transforms": ("jit", "vmap"),
    }
    if form == "pair":
        return check_rule(*parts, *arguments, reference=reference, **settings)
    if form == "function":
        return check_custom_vjp(parts[0], reference, *arguments, **settings)
    if len(arguments) != 1:
        raise InputError(f"check: a layer takes one input, x, got {len(arguments)}")
    return check_layer(parts[0], arguments[0], reference=reference, **settings)


def recognize(spec: str, with_reference: bool) -> tuple[str, tuple[Any, ...]]:
    """("function", (f,)), ("layer", (layer,)) or ("pair", (forward, backward)), as a Rule is.

    Raises:
      InputError: it can't be imported, or is none of these.
    """
    found = load("target", spec, otherwise=MISSING)
    if isinstance(found, tuple | list) and len(found) == 2 and all(callable(f) for f in found):
        return "pair", tuple(found)
    parts = {name: getattr(found, name, None) for name in ("init", "forward", "backward")}
    if not inspect.isclass(found) and callable(parts["forward"]) and callable(parts["backward"]):
        return ("layer", (found,)) if callable(parts["init"]) else ("pair", (parts["forward"], parts["backward"]))
    if isinstance(found, jax.custom_vjp | jax.custom_jvp) or (callable(found) and with_reference):
        return "function", (found,)
    pair = tuple(load("target", f"{spec}_{half}", otherwise=MISSING) for half in ("forward", "backward"))
    if all(callable(half) for half in pair):
        return "pair", pair
    if found is MISSING:
        load("target", spec)  # says what is missing
    hint = ", which needs a reference" if callable(found) else ""
    raise InputError(f"check: the target must be {FORMS}, got {spec}: {describe(found)}{hint}")


def load(option: str, spec: str, otherwise: object = None) -> Any:
    """The object that "package.module:name" names; `otherwise` where the module has no such name, None for an error.

    Raises:
      InputError: it can't be imported.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise InputError(f"check: {option} must be written as package.module:name, got {spec!r}")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        why = "" if missing == module_name else f", because there is no module {missing}"
        raise InputError(f"check: {option} {spec} can't be imported: no module {module_name}{why}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"check: {option} {spec} can't be imported: {_in_short(error)}") from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            if otherwise is not None:
                return otherwise
            raise InputError(f"check: {option} {spec} can't be imported: {module_name} has no {path}") from None
    return found


def from_function(request: Request) -> tuple[Any, ...]:
    """The arguments that the user's function returns; it may take a NumPy random generator.

    Raises:
      InputError: it can't be imported, isn't a function, raises, or returns something else than a tuple.
    """
    function = load("args", request.args)
    if not callable(function):
        raise InputError(f"check: args must be a function that returns a tuple, got {describe(function)}")
    try:
        arguments = function(np.random.default_rng(request.seed)) if _takes_one(function) else function()
    except Exception as error:
        raise InputError(f"check: args {request.args} raised {_in_short(error)}") from None
    if not isinstance(arguments, tuple | list):
        raise InputError(f"check: args {request.args} must return a tuple of arguments, got {describe(arguments)}")
    return tuple(arguments)


def from_shapes(request: Request) -> tuple[np.ndarray, ...]:
    """Normal numbers, one array for each shape of "5,7;7,3;3"; nothing between two semicolons is a scalar.

    Raises:
      InputError: not a list of shapes.
    """
    rng, dtype = np.random.default_rng(request.seed), jnp.dtype(request.dtype or "float32")
    arguments = []
    for shape in parse_shapes(request.shapes):
        numbers = rng.standard_normal(shape)
        if dtype.kind == "c":
            numbers = numbers + 1j * rng.standard_normal(shape)
        arguments.append(np.asarray(numbers).astype(dtype))
    return tuple(arguments)


def parse_shapes(text: str) -> list[tuple[int, ...]]:
    """ "5,7;3" as [(5, 7), (3,)].

    Raises:
      InputError: anything else.
    """
    try:
        shapes = [tuple(int(n) for n in part.strip(" ()").split(",") if n.strip()) for part in text.split(";")]
    except ValueError:
        shapes = [(-1,)]
    if any(n < 0 for shape in shapes for n in shape):
        raise InputError(f'check: shapes must be whole numbers as in "5,7;7,3;3", got {text!r}')
    return shapes


def _takes_one(function: Callable[..., object]) -> bool:
    """Whether the function has a parameter that must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)


def _in_short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
