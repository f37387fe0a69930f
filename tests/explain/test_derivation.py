"""The four steps of a rule's derivation, in numbers."""

import numpy as np
import pytest

import handgrad as hg
from handgrad.explain import as_text, derivation_document, derive
from handgrad.explain.derivation import rule_names
from handgrad.explain.text import width

# Parameters, several outputs, integers, a random key, an estimator, a loss with a target.
SAMPLE = ("linear", "vector_quantize", "embedding", "dropout", "straight_through_sign", "squared_error")


def checked(name):
    derivation = derive(name)
    total = sum(argument.inner for argument in derivation.arguments)
    assert total == pytest.approx(derivation.inner, rel=1e-8, abs=1e-10)
    for argument in derivation.arguments:
        if argument.cotangent is not None:
            assert argument.cotangent.shape == argument.value.shape
            size = max(np.abs(argument.autodiff).max(), 1e-300)
            assert np.abs(argument.cotangent - argument.autodiff).max() <= 1e-6 * size
    for output in derivation.outputs:
        np.testing.assert_allclose(output.value, output.reference, rtol=1e-6, atol=1e-9)
        if not derivation.estimator:
            size = max(np.abs(output.tangent).max(), 1e-300)
            assert np.abs(output.tangent - output.difference).max() <= 1e-5 * size
    assert derivation.backward
    assert derivation.page.startswith("docs/derivations/")
    text = as_text(derivation_document(derivation))
    assert max(map(width, text.splitlines())) <= 80
    assert all(f"{k}. {step}" in text for k, step in enumerate(("Pushforward", "Inner", "Rearrange", "Read"), 1))
    assert ("estimator" in text) == derivation.estimator
    return derivation, text


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_rules(name):
    derivation, text = checked(name)
    names = {"squared_error": ["C"], "vector_quantize": ["Y", "C"]}
    assert [output.name for output in derivation.outputs] == names.get(name, ["Y"])
    fixed = {"embedding": "Not differentiable, and fixed: ids."}
    assert ("fixed" in text) == (name in fixed)
    assert fixed.get(name, "") in " ".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in rule_names() if name not in SAMPLE])
def test_every_rule(name):
    checked(name)


def test_layer_norm_is_cut_and_rounded():
    derivation, text = checked("layer_norm")
    assert derivation.arguments[0].value.shape == (2, 4)
    assert np.array_equal(np.round(derivation.arguments[0].value, 1), derivation.arguments[0].value)
    assert "⟨dY, Ẏ⟩ = ⟨dX, Ẋ⟩ + ⟨dγ, γ̇⟩ + ⟨dβ, β̇⟩" in text


def test_large_arguments_are_made_small_and_options_have_values():
    derivation, text = checked("attention")
    assert {argument.value.shape for argument in derivation.arguments} == {(1, 3, 1, 3)}
    assert "causal = False" in text
    assert derive("layer_norm").options == "eps = 1e-05"


@pytest.mark.slow
def test_two_examples_are_not_enough_for_batch_norm():
    """Each is at ±1 then, and dX next to nothing."""
    derivation, _ = checked("batch_norm")
    X = derivation.arguments[0]
    assert X.value.shape == (3, 4)
    assert np.abs(X.cotangent).max() > 0.1


def test_formulas_without_options():
    """The docstring's first block; what options add is in the second."""
    assert derive("softmax_cross_entropy").backward[0].startswith("dZ = dC ∘ (P − Q)")
    assert "κ" not in "".join(derive("softmax_cross_entropy").backward)


def test_an_unknown_rule():
    with pytest.raises(
        hg.InputError, match=r"^explain: rule must be one of \d+ names \(similar: layer_norm, .*\), got 'layernorm'$"
    ):
        derive("layernorm")
