"""A conformance suite: the operations of any library on the inputs and edge cases of ours, against our references.

    pytest --pyargs handgrad.conformance --ops mylib.ops:table

`table` is a dict from our names to your functions: {"softmax": mylib.softmax, ...}. A function is called as ours is,
f(*inputs, **options): the inputs and options of `hg.rules.<name>_forward`, without `residuals`. It returns that
function's output, and its gradient is what jax.vjp finds, so that a jax.custom_vjp function is checked as one. Where
yours is called in another way, the entry is (f, adapter), and adapter(f, *inputs, **options) returns the output.

A row is skipped where it has an option or an optional input that your function has no parameter for, or omits an input
that yours requires, and where yours raises NotImplementedError. See docs/pytest.md.
"""

import difflib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.cases import CASES, Case, first_rows
from handgrad.checks import InputError

__all__ = ["Row", "load", "rows"]

Op = Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]]
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Row:
    """One operation on one kind of input.

    Attributes:
      case: inputs, options and reference.
      f: the operation to check.
      adapter: (f, *inputs, **options) -> output, where `f` isn't called as ours is.
    """

    case: Case
    f: Callable[..., Any]
    adapter: Callable[..., Any] | None = None

    def __str__(self) -> str:
        """The operation, its inputs and its options: "gelu[rows approximate=True]"."""
        options = [f"{name}={value}" for name, value in self.case.of_values.items()]
        return f"{self.case.op}[{' '.join([self.case.name, *options])}]"

    @property
    def function(self) -> Callable[..., Any]:
        """(*inputs, **options) -> output."""
        return self.f if self.adapter is None else partial(self.adapter, self.f)

    @property
    def settings(self) -> dict[str, Any]:
        """How the function is checked, beside the reference.

        No finite differences, which hold a reference to account, and no negative control, which holds the inputs to
        account: both references and inputs have been, by this library's own tests.
        """
        return {"keywords": self.case.of_values, "name": str(self), "differences": False, "control": False}

    def unsupported(self, dtype: Any = None) -> str:
        """Why the function can't be checked on this row, in this dtype; "" where it can."""
        if misfit := self.misfit():
            return misfit
        if dtype is not None and jnp.dtype(dtype) not in (jnp.float64, *map(jnp.dtype, self.case.reduced)):
            return f"these inputs of {self.case.op} are not for {jnp.dtype(dtype).name}"
        try:
            with jax.enable_x64(True):
                jax.eval_shape(partial(self.function, **self.case.of_values), *self.case.arguments())
        except NotImplementedError as error:
            return f"{name_of(self.f)} raised NotImplementedError: {error}"
        except Exception:  # the check reports it
            return ""
        return ""

    def misfit(self) -> str:
        """What the function can't be given, or can't be called without; "" where its parameters suit the row.

        What an adapter passes on by * or ** is up to `f`.
        """
        options = self.case.of_values
        count = len(self.case.arguments())
        names: set[str] = set()
        places: list[inspect.Parameter] | None = None
        for parameters in map(parameters_of, [self.function, *([self.f] if self.adapter else [])]):
            kinds = {p.kind for p in parameters}
            if places is None and inspect.Parameter.VAR_POSITIONAL not in kinds:
                places = [p for p in parameters if p.kind in BY_POSITION and p.name not in options]
            names |= {p.name for p in parameters if p.kind in BY_NAME}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
        else:
            names |= options.keys()
        ours = parameters_of(self.case.rule.forward)[:count]
        extra = [p.name for p in ours[len(places) :] if p.default is not p.empty] if places is not None else []
        extra += [name for name in options if name not in names]
        needed = [p.name for p in (places or [])[count:] if p.default is p.empty]
        said = [f"takes no {' and no '.join(extra)}"] if extra else [f"needs {' and '.join(needed)}"] if needed else []
        return f"{name_of(self.f)} {said[0]}" if said else ""


def load(spec: str) -> Any:
    """What "package.module:name" names; modules are looked for in the current directory too.

    Raises:
      InputError: it can't be imported.
    """
    if ":" not in spec:
        raise InputError(f"conformance: ops must be written as package.module:table, got {spec!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return pkgutil.resolve_name(spec)
    except (Exception, SystemExit) as error:
        raise InputError(f"conformance: ops {spec} can't be imported: {type(error).__name__}: {error}") from None


def rows(table: Mapping[str, Op]) -> list[Row]:
    """The rows of each operation in the table.

    Raises:
      InputError: not such a table, a name that is none of ours, or a function that can't be called on any row.
    """
    known = first_rows()
    if not isinstance(table, Mapping) or not table:
        raise InputError(f"conformance: ops must be a dict from names of operations to functions, got {table!r:.80}")
    found: list[Row] = []
    for name, op in table.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, cutoff=0.5) or sorted(known)
            raise InputError(f"conformance: ops names {name!r}, which is no operation of ours; near: {', '.join(near)}")
        pair = op if isinstance(op, tuple) else (op,)
        if not (1 <= len(pair) <= 2 and all(map(callable, pair))):
            raise InputError(f"conformance: ops[{name!r}] must be a function, or (function, adapter), got {op!r:.80}")
        own = [Row(case, *pair) for case in CASES if case.op == name]
        misfits = [row.misfit() for row in own]
        if all(misfits):  # skipping them all would look like success
            raise InputError(f"conformance: no row of {name} can be checked: {misfits[0]}")
        found += own
    return found


def parameters_of(f: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    """The parameters of `f`; unknown ones, as of a compiled function, are any."""
    try:
        return list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        return list(inspect.signature(lambda *args, **kwargs: None).parameters.values())


def name_of(f: Callable[..., Any]) -> str:
    """What to call `f`."""
    while isinstance(f, partial):
        f = f.func
    return getattr(f, "__name__", repr(f))
