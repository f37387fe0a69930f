"""An explanation as plain data: what the page and other programs read."""

import math
from typing import Any

import numpy as np

from handgrad.explain.equations import signs
from handgrad.explain.matrix import place_in_two, shown, two_dimensional
from handgrad.explain.worked import Form, Gradient, LayerStep, Matrix, Run, Step, Worked


def to_json(worked: Worked) -> dict[str, Any]:
    """A dict of numbers, strings, lists and dicts, which `json.dumps` writes.

    A matrix is {"shape", "data"}, two-dimensional, tokens being rows and vectors columns; one of more than 64 elements,
    or a vector of more than 16, is {"shape", "summary"} with its own shape. A number that JSON lacks is a string:
    "nan", "inf" or "-inf".
    """
    return {
        "title": worked.title,
        "intro": worked.intro,
        "rates": [run.rate for run in worked.runs],
        "rate": worked.rate,
        "batch": worked.batch,
        "signs": signs(worked.equations).replace("⟦", "").replace("⟧", ""),
        "layers": [_form(form) for form in worked.layers],
        "loss": {
            "kind": worked.loss.kind,
            "forward": {"text": worked.loss.forward.text, "latex": worked.loss.forward.latex},
            "backward": {"text": worked.loss.backward.text, "latex": worked.loss.backward.latex},
        },
        "runs": [_run(run) for run in worked.runs],
    }


def _form(form: Form) -> dict[str, Any]:
    return {
        "name": form.name,
        "kind": form.kind,
        "forward": {"text": form.forward.text, "latex": form.forward.latex},
        "backward": [equation._asdict() for equation in form.backward],
        "params": list(form.params),
        "outer": list(form.outer),
    }


def _run(run: Run) -> dict[str, Any]:
    return {"rate": run.rate, "diverged": run.diverged, "steps": [_step(step) for step in run.steps]}


def _step(step: Step) -> dict[str, Any]:
    return {
        "loss": number(step.loss),
        "parts": {name: matrix(value) for name, value in step.parts.items()},
        "losses": [number(loss) for loss in np.asarray(step.losses).tolist()],
        "target": matrix(step.target),
        "dprediction": matrix(step.dprediction),
        "layers": [_layer(layer) for layer in step.layers],
    }


def _layer(layer: LayerStep) -> dict[str, Any]:
    return {
        **{name: matrix(getattr(layer, name)) for name in ("X", "Y", "dY")},
        "dX": None if layer.dX is None else matrix(layer.dX),
        "params": {name: matrix(value) for name, value in layer.params.items()},
        "grads": {name: _gradient(gradient) for name, gradient in layer.grads.items()},
        "updated": {name: matrix(value) for name, value in layer.updated.items()},
    }


def _gradient(gradient: Gradient) -> dict[str, Any]:
    said: dict[str, Any] = {"value": matrix(gradient.value)}
    for name in ("A", "Delta"):
        side = getattr(gradient, name)
        if side is not None:
            said[name] = matrix(side)
    checked = gradient.checked
    if checked is None:
        return {**said, "autodiff": None, "difference": None}
    off = np.max(np.abs(np.asarray(gradient.value) - np.asarray(checked.autodiff)), initial=0.0)
    index = list(place_in_two(checked.index, np.shape(gradient.value)))
    return {**said, "autodiff": number(float(off)), "difference": {"index": index, "value": number(checked.difference)}}


def matrix(array: Matrix) -> dict[str, Any]:
    """An array, or what summarizes it."""
    part = shown(array)
    rows = [[number(entry) for entry in row] for row in part.rows.tolist()]
    if part.summary is None:
        return {"shape": list(two_dimensional(array).shape), "data": rows}
    low, high, mean = map(number, part.summary)
    shape = part.shape if len(part.shape) > 1 else (*part.shape, 1)
    return {"shape": list(shape), "summary": {"min": low, "max": high, "mean": mean, "corner": rows}}


def number(value: float) -> float | str:
    """A number, or the string for one that JSON lacks."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
