"""Whole networks: the gradient of a model under a loss, and the first layer that is wrong."""

from dataclasses import replace
from typing import Any, Unpack

from handgrad.crosscheck.check import check_layer, check_rule, run
from handgrad.crosscheck.report.report import Report
from handgrad.crosscheck.settings import Settings, SettingsOptions, settings_of
from handgrad.crosscheck.subject.forms import from_model


def check_model(
    model: Any,
    loss: Any,
    params: Any,
    x: Any,
    target: Any,
    *,
    weights: Any = None,
    key: Any = None,
    name: str = "model",
    **settings: Unpack[SettingsOptions],
) -> Report:
    """Check a network's gradient by params and x, and where it is wrong find the first wrong layer.

    Args:
      model: a layer, with `forward(params, x, key)` and `backward(residuals, dy)`.
      loss: with `forward(prediction, target) -> (losses (batch,), residuals)` and `backward(residuals, dlosses)`.
      params, x, target: the model's parameters and one batch.
      weights: (batch,) what each example's loss is multiplied with; None: nothing.
      key: a random key for the forward pass; None: no noise.
      name: what the report calls it.
      **settings: the fields of `Settings`; without the negative control unless asked.
    Returns:
      Report. What is differentiated is each example's loss, so that a wrong weighting of examples shows. Where it
      fails, the reason names the first layer, from the loss backwards, whose own backward pass is wrong on the input
      that it sees.
    Derivation: docs/crosscheck.md
    """
    settings.setdefault("control", False)
    given = settings_of(settings)
    report = run(name, lambda: from_model(name, model, loss, (params, x, target, weights), key, given.dtype), given)
    if any(row.status == "FAIL" for row in report.rows):
        found = first_wrong(model, loss, params, x, target, key, given)
        report = replace(report, reason=f"{found}; {report.reason}")
    return report


def first_wrong(model: Any, loss: Any, params: Any, x: Any, target: Any, key: Any, settings: Settings) -> str:
    """One sentence: which layer's backward pass is wrong on its own, looking from the loss backwards."""
    quick: SettingsOptions = {
        "seed": settings.seed,
        "dtype": settings.dtype,
        "control": False,
        "contracts": False,
        "repair": False,  # the network's own report has it
        "transforms": (),
    }

    def loss_backward(residuals: Any, dlosses: Any) -> tuple[Any]:
        return (loss.backward(residuals, dlosses),)

    def loss_forward(prediction: Any) -> Any:
        return loss.forward(prediction, target)

    prediction, _ = model.forward(params, x, key)
    if check_rule(loss_forward, loss_backward, prediction, **quick).verdict == "FAIL":
        return "the loss itself is wrong"
    for path, layer, own, seen, its_key in reversed(innermost_layers(model, params, x, key)):
        found = check_layer(layer, seen, params=own, key=its_key, name=path, **quick)
        if found.verdict in ("FAIL", "INVALID"):
            return f"the first wrong layer, from the loss backwards, is {path}"
    return "each layer is right on its own, so they are put together wrongly"


def innermost_layers(model: Any, params: Any, x: Any, key: Any = None) -> list[tuple[str, Any, Any, Any, Any]]:
    """(path, layer, params, input, key) of every layer that isn't made of others, in forward order.

    A model that is made of others tells by a method parts(params, x, key), which returns them; it is empty, or there is
    no such method, where the model is a single layer.
    """
    parts = getattr(model, "parts", None)
    found = [] if parts is None else list(parts(params, x, key))
    return found or [("the model", model, params, x, key)]
