"""The checker's front door: point it at a gradient."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Unpack

from handgrad.crosscheck.course import examine, invalid
from handgrad.crosscheck.report.report import Report
from handgrad.crosscheck.search import search
from handgrad.crosscheck.settings import Settings, SettingsOptions, settings_of
from handgrad.crosscheck.subject import forms, functions
from handgrad.crosscheck.subject.arguments import Function, ProblemError
from handgrad.crosscheck.subject.problem import Problem
from handgrad.crosscheck.subject.words import label


def check_rule(
    rule: Any,
    *args: Any,
    reference: Function | None = None,
    argnums: int | Sequence[int] | None = None,
    name: str | None = None,
    **settings: Unpack[SettingsOptions],
) -> Report:
    """Check a forward pass and its backward pass: a Rule, or any pair of `custom_vjp`'s convention.

    Args:
      rule: (forward, backward); or the two as arguments of their own, `check_rule(forward, backward, *args)`.
        forward: (*args) -> (output, residuals).
        backward: (residuals, cotangent of the output) -> a tuple, one cotangent for each argument: an array, a pytree
        of the argument's structure, or a factor; None for an integer.
      *args: arrays or pytrees of them; float16, bfloat16, float32, float64 and complex are differentiated, integers
        and random keys pass through, whatever else is static.
      reference: (*args) -> output, written independently. None: autodiff of `forward` itself, which can't see an error
        in the forward pass.
      argnums: the arguments whose gradient is checked; None: all floating-point ones.
      name: what the report calls it.
      **settings: the fields of `Settings`.
    Returns:
      Report; it doesn't raise on a wrong gradient.
    Derivation: docs/crosscheck.md
    """
    given = settings_of(settings)
    if isinstance(rule, tuple) or hasattr(rule, "backward"):
        forward, backward = rule
    else:
        forward, backward, args = rule, args[0], args[1:]
    name = name or label(backward, "backward")
    return run(name, lambda: forms.from_rule(name, forward, backward, args, reference, given.dtype, argnums), given)


def check_in_dtypes(
    rule: Any, *args: Any, reference: Function | None, name: str, settings: Sequence[Settings]
) -> list[Report]:
    """`check_rule` once for each of the settings, which may differ in dtype: float64's programs are shared."""
    forward, backward = rule
    shared: dict[Any, Any] = {}

    def check(given: Settings) -> Report:
        def build() -> Problem:
            return forms.from_rule(name, forward, backward, args, reference, given.dtype)

        return run(name, build, given, shared)

    return [check(given) for given in settings]


def check_custom_vjp(
    f: Function,
    reference: Function | None,
    *args: Any,
    keywords: dict[str, Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    name: str | None = None,
    **settings: Unpack[SettingsOptions],
) -> Report:
    """Check a function that carries its own gradient: `jax.custom_vjp`, with or without nondiff_argnums.

    Args:
      f: the function, called as f(*args, **keywords).
      reference: the same in plain JAX; None: the function that `f` wraps.
      *args: as for `check_rule`; those of nondiff_argnums are passed on as they are.
      keywords: keyword arguments, passed on as they are.
      argnums: as for `check_rule`.
      name, **settings: as for `check_rule`.
    """
    given = settings_of(settings)
    name = name or label(f, "f")

    def build() -> Problem:
        return functions.from_custom_vjp(name, f, reference, args, keywords or {}, given.dtype, argnums)

    return run(name, build, given)


def check_function(
    f: Function,
    grad_f: Function,
    *args: Any,
    argnums: int | Sequence[int] = 0,
    reference: Function | None = None,
    name: str | None = None,
    **settings: Unpack[SettingsOptions],
) -> Report:
    """Check a gradient of a scalar function, in place of jax.grad(f, argnums).

    Args:
      f: (*args) -> real scalar.
      grad_f: (*args) -> the gradient of argument `argnums`, or a tuple of them for a sequence.
      argnums: the arguments that it is the gradient of, as in `jax.grad`.
      reference: (*args) -> the scalar, in JAX; None: f itself. Where JAX can't trace f either (NumPy, SciPy, a
        compiled library), finite differences are the only reference, and the report says so.
      *args, name, **settings: as for `check_rule`.
    """
    given = settings_of(settings)
    name = name or label(grad_f, "grad_f")
    return run(name, lambda: functions.from_function(name, f, grad_f, args, argnums, reference, given.dtype), given)


def check_layer(
    layer: Any,
    x: Any,
    *,
    params: Any = None,
    key: Any = None,
    reference: Function | None = None,
    name: str = "layer",
    **settings: Unpack[SettingsOptions],
) -> Report:
    """Check a layer: anything with `init(key, x)`, `forward(params, x, key)` and `backward(residuals, dy)`.

    Args:
      layer: the layer.
      x: its input.
      params: its parameters; None draws them by `init`.
      key: a random key for the forward pass; None: no noise.
      reference: (params, x) -> y, written independently; None: autodiff of the layer's own forward pass.
      name, **settings: as for `check_rule`.
    """
    given = settings_of(settings)

    def build() -> Problem:
        return forms.from_layer(name, layer, x, params, key, reference, given.seed, given.dtype)

    return run(name, build, given)


def run(name: str, build: Callable[[], Problem], settings: Settings, shared: dict[Any, Any] | None = None) -> Report:
    """Build a problem and check it; what is no gradient at all becomes a report too."""
    start = time.perf_counter()
    try:
        problem = build()
        report = examine(problem, settings, shared)
        if settings.search:
            report = search(problem, settings, report)
    except ProblemError as error:
        report = invalid(name, error)
    return replace(report, settings={**report.settings, "seconds": round(time.perf_counter() - start, 2)})
