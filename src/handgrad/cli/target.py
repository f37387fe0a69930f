"""handgrad check on a user's own code: from the names on the command line to a report."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import InputError, describe
from handgrad.cli.inputs import check_arguments, draw, parse_shapes, required
from handgrad.crosscheck import Report, check_custom_vjp, check_layer, check_rule
from handgrad.crosscheck.settings import SettingsOptions, Transform, settings_of
from handgrad.crosscheck.subject.messages import in_short

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
      search: whether to search for inputs that make it fail.
      argnums: the arguments whose gradient is checked; () for all.
      differences, transforms, rtol, atol, repair, repair_seconds: the check's settings; `repair` False for none.
    """

    target: str
    args: str = ""
    shapes: str = ""
    reference: str = ""
    dtype: str | None = None
    seed: int = 0
    search: bool = False
    argnums: tuple[int, ...] = ()
    differences: bool = True
    transforms: tuple[Transform, ...] = ("jit", "vmap")
    rtol: float | None = None
    atol: float = 0.0
    repair: bool = True
    repair_seconds: float = 15.0

    def settings(self) -> SettingsOptions:
        """Those of the check.

        Raises:
          InputError: one has an invalid value.
        """
        settings: SettingsOptions = {
            "seed": self.seed,
            "dtype": None if self.dtype is None else jnp.dtype(self.dtype),
            "search": self.search,
            "differences": self.differences,
            "transforms": self.transforms,
            "rtol": self.rtol,
            "atol": self.atol,
            "repair": None if self.repair else False,
            "repair_seconds": self.repair_seconds,
        }
        try:
            settings_of(settings)
        except ValueError as error:
            raise InputError(f"check: {error}") from None
        return settings


class Target(NamedTuple):
    """What is checked: its form, and the functions it is made of.

    Attributes:
      form: "function" (f,), "layer" (layer,) or "pair" (forward, backward).
      parts: as many as the form has.
    """

    form: str
    parts: tuple[Any, ...]

    @property
    def forward(self) -> Callable[..., Any]:
        """The forward pass as a function of the command line's arguments."""
        (first, *_), layer = self.parts, self.form == "layer"
        return (lambda x: first.forward(first.init(jax.random.key(0), x), x, None)) if layer else first


def check_target(request: Request) -> Report:
    """Import the target, make its inputs, and check it.

    Raises:
      InputError: the command line is wrong.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current directory, as `python -m` has it
    settings = request.settings()
    target = recognize(request.target, with_reference=bool(request.reference))
    reference = load("reference", request.reference) if request.reference else None
    if reference is not None and not callable(reference):
        raise InputError(f"check: reference must be a function, got {describe(reference)}")
    if bool(request.args) == bool(request.shapes):
        raise InputError("check: a target needs either --args or --shapes")
    if request.args:
        arguments = from_function(request)
        check_arguments(request.target, target.forward, len(arguments), f"args {request.args}")
    else:
        shapes = parse_shapes(request.shapes)
        check_arguments(request.target, target.forward, len(shapes), f"shapes {request.shapes}")
        arguments = draw(request.target, target.forward, shapes, request.dtype or "float32", request.seed)
    name, parts, argnums = request.target, target.parts, request.argnums or None
    if argnums and target.form == "layer":
        raise InputError(f"check: argnums is for functions and rules, and {name} is a layer")
    try:
        if target.form == "pair":
            return check_rule(*parts, *arguments, reference=reference, argnums=argnums, name=name, **settings)
        if target.form == "function":
            return check_custom_vjp(parts[0], reference, *arguments, argnums=argnums, name=name, **settings)
        return check_layer(parts[0], arguments[0], reference=reference, name=name, **settings)
    except SystemExit as error:  # its status is not the check's
        return Report(name, "INVALID", f"{name} raised SystemExit while being checked: {error}", "hand")


def recognize(spec: str, with_reference: bool) -> Target:
    """The target that "package.module:name" names.

    Raises:
      InputError: it can't be imported, or has none of the forms.
    """
    found = load("target", spec, otherwise=MISSING)
    if isinstance(found, tuple | list) and len(found) == 2 and all(callable(f) for f in found):
        return Target("pair", tuple(found))
    parts = {name: getattr(found, name, None) for name in ("init", "forward", "backward")}
    if not isinstance(found, type) and callable(parts["forward"]) and callable(parts["backward"]):
        layer = callable(parts["init"])
        return Target("layer", (found,)) if layer else Target("pair", (parts["forward"], parts["backward"]))
    if isinstance(found, jax.custom_vjp | jax.custom_jvp) or (callable(found) and with_reference):
        return Target("function", (found,))
    pair = tuple(load("target", f"{spec}_{half}", otherwise=MISSING) for half in ("forward", "backward"))
    if all(callable(half) for half in pair):
        return Target("pair", pair)
    if found is MISSING:
        load("target", spec)  # raises the error that says what is missing
    hint = ", which needs a reference" if callable(found) else ""
    raise InputError(f"check: the target must be {FORMS}, got {spec}: {describe(found)}{hint}")


def load(option: str, spec: str, otherwise: object = None, command: str = "check") -> Any:
    """The object that "package.module:name" names; `otherwise` where the module has no such name, None for an error.

    Raises:
      InputError: it can't be imported.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path) or module_name.endswith(".py"):
        instead = f"; write {_as_module(module_name)}:{path or 'name'}" if module_name.endswith(".py") else ""
        raise InputError(f"{command}: {option} must be written as package.module:name, got {spec!r}{instead}")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        why = "" if missing == module_name else f", because there is no module {missing}"
        raise InputError(f"{command}: {option} {spec} can't be imported: no module {module_name}{why}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{command}: {option} {spec} can't be imported: {raised(error)}") from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            if otherwise is not None:
                return otherwise
            raise InputError(f"{command}: {option} {spec} can't be imported: {module_name} has no {path}") from None
        except (Exception, SystemExit) as error:
            raise InputError(f"{command}: {option} {spec} can't be imported: {raised(error)}") from None
    return found


def _as_module(file: str) -> str:
    """The module that a file is, from the current directory: "tests/mine.py" is tests.mine."""
    parts = Path(file.removesuffix(".py")).parts
    return parts[-1] if Path(file).is_absolute() or ".." in parts else ".".join(parts)


def from_function(request: Request) -> tuple[Any, ...]:
    """The arguments that the user's function returns; it may take a NumPy random generator.

    Raises:
      InputError: it can't be imported, isn't a function, raises, or returns something other than a tuple.
    """
    function = load("args", request.args)
    if not callable(function):
        raise InputError(f"check: args must be a function that returns a tuple, got {describe(function)}")
    try:
        given = (np.random.default_rng(request.seed),) if required(function) else ()
        arguments = function(*given)
    except (Exception, SystemExit) as error:
        raise InputError(f"check: args {request.args} raised {raised(error)}") from None
    if not isinstance(arguments, tuple | list):
        raise InputError(f"check: args {request.args} must return a tuple of arguments, got {describe(arguments)}")
    return tuple(arguments)


def raised(error: BaseException) -> str:
    """An error of the user's code in a few words."""
    message = in_short(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
