"""LeNet-5, the residual network and the LSTM on a state with their published names: PyTorch, and a file and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.models import (
    LENET5_STATE,
    LstmLanguageModelConfig,
    ResnetConfig,
    from_state,
    lenet5,
    load,
    lstm_language_model,
    lstm_language_model_state,
    resnet,
    resnet_state,
    save,
    to_state,
)

RESNET = ResnetConfig(classes=3, widths=(2, 4), blocks=(1, 2), norm="batch")
LSTM = LstmLanguageModelConfig(vocabulary=7, width=3)
RNG = np.random.default_rng(0)
MODELS = {
    "lenet5": (lenet5(), LENET5_STATE, RNG.standard_normal((3, 28, 28, 1)), np.array([0, 7, 2])),
    "resnet": (resnet(RESNET), resnet_state(RESNET), RNG.standard_normal((4, 6, 6, 3)), np.array([0, 2, 1, 1])),
    "lstm": (
        lstm_language_model(LSTM),
        lstm_language_model_state(LSTM),
        RNG.integers(0, 7, (2, 4)),
        RNG.integers(0, 7, (2, 4)),
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def drawn(name):
    """Parameters none of which is 0 or 1."""
    model, _, x, _ = MODELS[name]
    rng = np.random.default_rng(1)
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape), like)


@pytest.mark.third_party
@every_model
def test_torch_on_the_published_state(name):
    """Logits, and the gradient of every array of the state."""
    torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
    import models_in_torch

    model, table, x, labels = MODELS[name]
    params = drawn(name)
    run = jax.jit(hg.value_and_grad(model, hg.softmax_cross_entropy(), has_aux=True))
    (_, logits), grads = run(params, x, labels)
    state = {key: torch.tensor(array, requires_grad=True) for key, array in to_state(table, params).items()}
    if name == "lenet5":
        expected = models_in_torch.lenet5(state, torch.tensor(x))
    elif name == "resnet":
        expected = models_in_torch.resnet(state, torch.tensor(x), RESNET.blocks)
    else:
        expected = models_in_torch.lstm_language_model(state, torch.tensor(x), LSTM.layers)
    cost = torch.nn.functional.cross_entropy(expected.flatten(0, -2), torch.tensor(labels).flatten(), reduction="sum")
    (cost / len(x)).backward()
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    ours = to_state(table, grads)
    for key, array in state.items():
        # Two biases that are added have one gradient; ours stands in the first.
        gradient, theirs = ours[key.replace("bias_hh", "bias_ih")], array.grad.numpy()
        np.testing.assert_allclose(gradient, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max(), err_msg=key)


@every_model
def test_state_there_and_back(name, tmp_path):
    """Through a safetensors file, and every name of the table is used."""
    pytest.importorskip("safetensors")
    model, table, x, _ = MODELS[name]
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(lambda p, leaf: np.asarray(p, leaf.dtype), drawn(name), like)
    save(table, params, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(table, like, tmp_path / "model.safetensors"), params)
    paths = {jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in jax.tree_util.tree_leaves_with_path(like)}
    assert paths == set(table)


def test_two_biases_are_one():
    model, table, x, _ = MODELS["lstm"]
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    state = to_state(table, drawn("lstm"))
    state["rnn.bias_hh_l1"] = np.arange(12.0)
    found = from_state(table, like, state)
    np.testing.assert_allclose(found["lstm"][1].b, state["rnn.bias_ih_l1"] + np.arange(12.0))


def test_an_array_of_another_shape():
    model, table, x, _ = MODELS["resnet"]
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    state = to_state(table, drawn("resnet"))
    wrong = state | {"layer2.1.conv1.weight": jnp.zeros((4, 4, 1, 3))}
    said = r"layer2\.1\.conv1\.weight must have shape \(4, 4, 3, 3\), got float64 \(4, 4, 1, 3\)"
    with pytest.raises(hg.InputError, match=said):
        from_state(table, like, wrong)
