"""The public API is documented: every name of every room, its public methods, and every field by name."""

import dataclasses
import inspect
import re
import sys

import pytest
from conftest import REPOSITORY

import handgrad as hg

sys.path.insert(0, str(REPOSITORY / "docs/_ext"))
import reference

ROOMS = ["", *(room for room in dir(hg) if inspect.ismodule(getattr(hg, room)))]


def public(room):
    """{name: value} of what a room exports, or of the top level."""
    module = getattr(hg, room) if room else hg
    names = getattr(module, "__all__", dir(module))
    found = {name: getattr(module, name) for name in names if not name.startswith("_")}
    return {name: value for name, value in found.items() if not inspect.ismodule(value) and is_ours(value)}


def is_ours(value):
    """Neither jax.Array nor another's class, which a room may name; a value without a module is ours."""
    return str(getattr(value, "__module__", "handgrad")).startswith("handgrad")


def undocumented(room, name, value):
    """What lacks words: the name itself, a method or property of a class, a field that no docstring names."""
    if isinstance(value, hg.Rule):  # its passes are exported beside it
        return [pass_.__name__ for pass_ in value if not inspect.getdoc(pass_)]
    if not inspect.isclass(value):
        text = inspect.getdoc(value) if inspect.isfunction(value) else reference.doc_of_value(room, name)
        return [] if text else [name]
    said = "\n".join(inspect.getdoc(base) or "" for base in value.__mro__ if base.__module__.startswith("handgrad"))
    fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    fields += getattr(value, "_fields", ())
    methods = {
        attribute: held
        for attribute, held in inspect.getmembers_static(value)
        if not attribute.startswith("_") and isinstance(held, property | classmethod | staticmethod | type(public))
    }
    return [
        *([] if inspect.getdoc(value) else [name]),
        *(f"{name}.{field}" for field in fields if not field.startswith("_") and not re.search(rf"\b{field}\b", said)),
        *(f"{name}.{method}" for method in methods if not inspect.getdoc(getattr(value, method))),
    ]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room or "handgrad")
def test_everything_public_is_documented(room):
    found = public(room)
    assert found
    assert [gap for name, value in found.items() for gap in undocumented(room, name, value)] == []
