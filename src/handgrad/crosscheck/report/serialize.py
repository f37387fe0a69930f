"""Dataclasses as JSON (RFC 8259: NaN and infinities are strings), and back by their annotations."""

import json
import math
from dataclasses import Field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")
Value = float | complex | None  # an element of an array; in JSON a number, [real, imaginary], or null
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # JavaScript's names for numbers that JSON has no digits for


def dumps(value: object, schema: str) -> str:
    """A dataclass as JSON under a schema's name. What JSON has no type for, such as a device, is written as text."""
    return json.dumps({"schema": schema, **_plain(value)}, indent=1, ensure_ascii=False, allow_nan=False)


def loads(kind: type[T], text: str, schema: str) -> T:
    """The dataclass that `dumps` wrote. Under the annotation Any, sequences become tuples and names of numbers numbers.

    Raises:
      ValueError: not JSON, another schema, or a field that is missing, unknown or of another type.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"text must be JSON, got {text[:40]!r} ({error})") from None
    given = found.pop("schema", None) if isinstance(found, dict) else None
    if given != schema:
        raise ValueError(f"the schema must be {schema!r}, got {given!r}")
    return _read(kind, found, kind.__name__.lower())


def written(value: Any) -> list[Field[Any]]:
    """The fields of a dataclass that go into JSON."""
    return [one for one in fields(value) if one.metadata.get("json", True)]


def _plain(value: object) -> Any:
    """A value in JSON's types."""
    # Not dataclasses.asdict: it deep-copies values, and a device can't be copied.
    if is_dataclass(value):
        return {one.name: _field(getattr(value, one.name), one.type) for one in written(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _field(value: object, kind: object) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return _plain((value.real, value.imag) if kind == Value and isinstance(value, complex) else value)


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value in JSON's types as the annotation `kind` describes it; `where` names it in errors."""
    origin, inside = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        types = get_type_hints(kind)
        hints = {one.name: types[one.name] for one in written(kind)}
        if wrong := sorted(hints.keys() ^ value.keys()):
            raise ValueError(f"the field {where}.{wrong[0]} is {'missing' if wrong[0] in hints else 'unknown'}")
        return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
    if kind == Value and isinstance(value, list):
        return complex(*(_read(float, part, where) for part in value))
    if origin is UnionType:  # always X | None
        return None if value is None else _read(inside[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inside[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(inside[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any:
        return _untyped(value)
    if kind is float and (value in NOT_FINITE if isinstance(value, str) else type(value) in (int, float)):
        return float(value) if isinstance(value, str) else value
    if type(value) is kind or (origin is Literal and value in inside):
        return value
    wanted = f"one of {', '.join(inside)}" if origin is Literal else getattr(kind, "__name__", str(kind))
    raise ValueError(f"{where} must be {wanted}, got {value!r}")


def _untyped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untyped(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_untyped(item) for item in value)
    return float(value) if value in NOT_FINITE else value
