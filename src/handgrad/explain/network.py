"""A network that was worked through, as a document: forward, loss, backward, check, update, steps."""

from collections.abc import Iterator

import numpy as np

from handgrad.explain.document import MORE_AXES, Document, Element, Formula, Heading, Matrices, Named, Paragraph, Table
from handgrad.explain.equations import latex_name, signs, text_name
from handgrad.explain.markup import latex_number
from handgrad.explain.matrix import NOISE, number, two_dimensional
from handgrad.explain.worked import Checked, Form, Gradient, LayerStep, Matrix, Run, Step, Worked

MOST_TERMS = 4  # outer products that are shown; of more, the first three and the last
MOST_STEPS = 25  # rows of the table of steps; of more, the first 20 and the last five
MOST_WEIGHTS = 3  # up to which each weight has a column there


def network_document(worked: Worked) -> Document:
    """The first step in full, and a line for each of the others."""
    return list(_elements(worked))


def _elements(worked: Worked) -> Iterator[Element]:
    step = worked.run.steps[0]
    pairs = list(zip(worked.layers, step.layers, strict=True))
    yield Heading(worked.title, 1)
    if worked.intro:
        yield Paragraph(worked.intro)
    if said := signs(worked.equations):
        yield Paragraph(said)
    if any(np.ndim(array) > 2 for _, layer in pairs for array in (layer.X, layer.Y, *layer.params.values())):
        yield Paragraph(MORE_AXES)
    yield Heading("Forward")
    for form, layer in pairs:
        yield Heading(_title(form), 3)
        yield Formula(form.forward.text, form.forward.latex)
        params = (_named(name, layer.params[name]) for name in form.params)
        yield Matrices((_named("X", layer.X), *params, _named("Y", layer.Y)))
    yield from _loss(worked, step)
    yield Heading("Backward")
    yield Paragraph(
        "⟦dY⟧, ⟦dX⟧ and ⟦dW⟧ are the derivatives of the loss with respect to ⟦Y⟧, ⟦X⟧ and ⟦W⟧, their cotangents, of "
        "the same shapes. Each layer's ⟦dY⟧ is the ⟦dX⟧ of the layer after it. ⟦A⟧ is what a weight was multiplied "
        "with, and ⟦Δ⟧ the cotangent of that product: in a linear layer, ⟦A = X⟧ and ⟦Δ = dY⟧."
    )
    yield Formula(worked.loss.backward.text, worked.loss.backward.latex)
    yield Matrices((_named("dY", step.dprediction),))
    for i, (form, layer) in reversed([*enumerate(pairs)]):
        yield from _backward(worked, form, layer, is_first=i == 0)
    yield from _checks(worked, step)
    yield from _update(worked, step)
    yield from _steps(worked, worked.run)


def _title(form: Form) -> str:
    return f"The layer, {form.kind}" if form.name == form.kind else f"Layer {form.name}, {form.kind}"


def _named(name: str, value: Matrix) -> Named:
    return Named(text_name(name), latex_name(name), value)


def _cotangent(name: str, value: Matrix) -> Named:
    symbol = latex_name(name)
    return Named(f"d{text_name(name)}", f"d{symbol}", value)


def _loss(worked: Worked, step: Step) -> Iterator[Element]:
    yield Heading(f"Loss: {worked.loss.kind}")
    as_rows = ""
    if "Q" in step.parts:
        as_rows = " ⟦Q⟧ has a 1 in the column of each label (one-hot); labels are counted from 0."
    yield Paragraph(f"⟦Y⟧ is the prediction, the output of the last layer, and ⟦Y*⟧ the target.{as_rows}")
    yield Formula(worked.loss.forward.text, worked.loss.forward.latex)
    target = Named("Y*", r"Y^{\ast}", step.target)
    parts = (Named(name, name, value) for name, value in step.parts.items())
    losses = [Named("C_b", "C_b", step.losses)]
    if worked.batch > 1:
        losses.append(Named("C", "C", np.array(step.loss)))
    yield Matrices((target, *parts, *losses))


def _backward(worked: Worked, form: Form, layer: LayerStep, is_first: bool) -> Iterator[Element]:
    """A layer's gradients, then what goes to the layer before."""
    yield Heading(_title(form), 3)
    of = {equation.of: equation for equation in form.backward}
    for name in form.params:
        equation, gradient = of[f"d{name}"], layer.grads[name]
        yield Formula(equation.text, equation.latex)
        if gradient.A is not None and gradient.Delta is not None:
            yield from _product(worked, name, gradient, layer)
        else:
            yield Matrices((_cotangent(name, gradient.value),))
    if "dX" in of and layer.dX is not None:
        if is_first:
            yield Paragraph("Of the network's input, which training doesn't need:")
        yield Formula(of["dX"].text, of["dX"].latex)
        yield Matrices((_named("dX", layer.dX),))


def _product(worked: Worked, name: str, gradient: Gradient, layer: LayerStep) -> Iterator[Element]:
    """dW = AᵀΔ, and as the sum of one outer product for each example."""
    A, Delta = two_dimensional(gradient.A), two_dimensional(gradient.Delta)  # type: ignore[arg-type]
    whole = _cotangent(name, gradient.value)
    sides = _side("A", A, "X", layer.X), _side("Δ", Delta, "dY", layer.dY)
    yield Matrices((*sides, whole))
    batch = worked.batch
    if batch == 1 or len(A) % batch or np.size(gradient.value) > 64:
        return
    each = len(A) // batch
    chosen = range(batch) if batch <= MOST_TERMS else [0, 1, 2, batch - 1]
    terms = [
        Named(f"A_{b + 1}ᵀ Δ_{b + 1}", rf"A_{{{b + 1}}}^\top \Delta_{{{b + 1}}}", _outer(A, Delta, b, each))
        for b in chosen
    ]
    signs = ["+"] * (len(terms) - 1)
    if batch > MOST_TERMS:
        signs[-1] = "+ … +"
    rows = "the row" if each == 1 else f"the {each} rows"
    yield Paragraph(f"The sum of one outer product for each example, ⟦A_b⟧ and ⟦Δ_b⟧ being {rows} of example ⟦b⟧:")
    yield Matrices((*terms, whole), (*signs, "="))


def _side(name: str, value: np.ndarray, source: str, of_layer: Matrix) -> Named:
    """A or Δ; where it is the layer's X or dY, it says so."""
    latex = name.replace("Δ", r"\Delta")
    if np.array_equal(value, two_dimensional(of_layer), equal_nan=True):
        return Named(f"{name} = {source}", f"{latex} = {source}", value)
    return Named(name, latex, value)


def _outer(A: np.ndarray, Delta: np.ndarray, b: int, each: int) -> np.ndarray:
    rows = slice(b * each, (b + 1) * each)
    return A[rows].T @ Delta[rows]


def _checks(worked: Worked, step: Step) -> Iterator[Element]:
    rows = []
    for form, layer in zip(worked.layers, step.layers, strict=True):
        for name in form.params:
            gradient = layer.grads[name]
            checked = gradient.checked
            if checked is None:
                continue
            off = float(np.max(np.abs(np.asarray(gradient.value) - checked.autodiff), initial=0.0))
            entry = ", ".join(str(i + 1) for i in checked.index)
            numbers = gradient.value[checked.index], checked.autodiff[checked.index], checked.difference
            rows.append(
                (
                    f"d{text_name(name)}{_place(form)}",
                    entry,
                    *(number(float(n), 8) for n in numbers),
                    _off(off, checked),
                )
            )
    if rows:
        yield Heading("Checked")
        yield Paragraph(
            "The largest entry of each gradient, at its row and column, beside jax.grad's and a difference quotient of "
            "the loss; and the largest difference from jax.grad in all entries, ≈ 0 if it is rounding:"
        )
        yield Table(("gradient", "entry", "by hand", "jax.grad", "quotient", "off by"), tuple(rows))


def _off(off: float, checked: Checked) -> str:
    """A difference, or ≈ 0 for one that float64 rounds away: which it is depends on the machine."""
    return "≈ 0" if off <= NOISE * np.max(np.abs(checked.autodiff), initial=0.0) else number(off, 2)


def _place(form: Form) -> str:
    return "" if form.name == form.kind else f" in layer {form.name}"


def _update(worked: Worked, step: Step) -> Iterator[Element]:
    if not any(form.params for form in worked.layers):
        return
    rate = number(worked.run.rate)
    yield Heading("Update")
    yield Paragraph(f"Every parameter moves against its gradient, times the learning rate {rate}:")
    for form, layer in zip(worked.layers, step.layers, strict=True):
        for name in form.params:
            where = _place(form).strip()
            symbol, shown = latex_name(name), text_name(name)
            latex = rf"{symbol} \leftarrow {symbol} - {latex_number(rate)}\, d{symbol}"
            latex += r"\qquad\text{" + where.replace("_", r"\_") + "}" if where else ""
            yield Formula(f"{shown} ← {shown} − {rate} d{shown}   {where}".rstrip(), latex)
            yield Matrices((_named(name, layer.updated[name]),))


def _steps(worked: Worked, run: Run) -> Iterator[Element]:
    """The loss before each step; weights after it, where they are few."""
    if len(run.steps) == 1:
        return
    weights = [
        (f"layer {form.name}'s {name}" if len(worked.layers) > 1 else name, i, name)
        for i, form in enumerate(worked.layers)
        for name in form.params
        if np.size(run.steps[0].layers[i].params[name]) == 1
    ]
    count = sum(np.size(a) for layer in run.steps[0].layers for a in layer.params.values())
    weights = weights if count <= MOST_WEIGHTS else []
    rows = [
        (
            str(k + 1),
            number(step.loss),
            *(f"{np.asarray(step.layers[i].updated[name]).item():.5g}" for _, i, name in weights),
        )
        for k, step in enumerate(run.steps)
    ]
    if len(rows) > MOST_STEPS:
        rows = [*rows[:20], tuple("…" for _ in rows[0]), *rows[-5:]]
    yield Heading(f"{len(run.steps)} steps")
    if run.diverged:
        yield Paragraph("The loss grows: this learning rate is too large.")
    after = tuple(f"{name} after" for name, _, _ in weights)
    yield Table(("step", "loss before", *after), tuple(rows))
