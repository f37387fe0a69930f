"""Rows of rules/gated_units.py."""

import numpy as np

from cases.activations import sigmoid
from cases.case import Case, fixed, normal
from cases.self_gated import gelu
from handgrad import layers


def glu(U, V):
    return sigmoid(U) * V


def swiglu(U, V):
    return U * sigmoid(U) * V


def geglu(U, V, approximate=False):
    return gelu(U, approximate) * V


def gated(op, reference, **options):
    """Both policies, tokens, and gates at 0 and wide open."""
    suffix = "".join(f"-{value}" for value in options.values())
    extreme = fixed(np.array([[0.0, 1e4, -1e4, 30.0]]), np.array([[1.5, -2.0, 3.0, -0.5]]))
    return [
        Case(op, f"rows{suffix}", normal((4, 5), (4, 5), scale=2.0), reference, options),
        Case(op, f"saved{suffix}", normal((3, 2, 4), (3, 2, 4)), reference, {**options, "residuals": "save"}),
        Case(op, f"1e4{suffix}", extreme, reference, options),
    ]


CASES = [
    *gated("glu", glu),
    *gated("swiglu", swiglu),
    *gated("geglu", geglu),
    *gated("geglu", geglu, approximate=True),
]


LAYERS = {op: getattr(layers, op) for op in ("glu", "swiglu", "geglu")}
