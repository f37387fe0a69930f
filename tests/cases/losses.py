"""Rows of rules/losses.py."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from cases.case import Case, fixed, integers, numbers, per_example, with_target
from handgrad import layers


def squared_error(A, Y):
    return per_example(jnp.square(A - Y))


def l2_loss(A, Y):
    return per_example(jnp.square(A - Y) / 2)


def absolute_error(A, Y):
    return per_example((A - Y) * jnp.sign(A - Y))


def huber_loss(A, Y, delta=1.0):
    size = jnp.abs(A - Y)
    return per_example(jnp.where(size <= delta, jnp.square(A - Y) / 2, delta * (size - delta / 2)))


def regression(op: str, reference: Callable[..., Any], **options: Any) -> list[Case]:
    suffix = "".join(f"-{value}" for value in options.values())
    return [
        Case(op, f"rows{suffix}", with_target((5, 7), numbers), reference, options),
        Case(op, f"tokens{suffix}", with_target((3, 2, 4), numbers), reference, options),
        Case(op, f"scalars{suffix}", with_target((4,), numbers), reference, options),
        Case(op, f"integers{suffix}", with_target((4, 3), integers), reference, options),
        Case(op, f"met{suffix}", fixed([[1.0, 2.0]], [[1.0, 3.0]]), reference, options),
    ]


CASES = [
    *regression("squared_error", squared_error),
    *regression("l2_loss", l2_loss),
    *regression("absolute_error", absolute_error),
    *regression("huber_loss", huber_loss),
    *regression("huber_loss", huber_loss, delta=0.25),
]


LAYERS = {op: getattr(layers, op) for op in ("squared_error", "l2_loss", "absolute_error", "huber_loss")}
