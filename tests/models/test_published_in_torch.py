"""Models on their published state beside PyTorch: logits, and the gradient of every array; and states of PyTorch."""

import jax
import jax.numpy as jnp
import models_in_torch
import numpy as np
import pytest
from published_models import GPT2, LLAMA, LSTM, MODELS, RESNET, check_same, made

import handgrad as hg
from handgrad.models import from_state, to_state

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
pytestmark = pytest.mark.third_party

THEIRS = {
    "lenet5": models_in_torch.lenet5,
    "resnet": lambda state, x: models_in_torch.resnet(state, x, RESNET.blocks),
    "lstm": lambda state, x: models_in_torch.lstm_language_model(state, x, LSTM.layers),
    "gpt2": lambda state, x: models_in_torch.gpt2(state, x, GPT2.blocks, GPT2.heads, GPT2.eps),
    "llama": lambda state, x: models_in_torch.llama(
        state, x, LLAMA.blocks, LLAMA.heads, LLAMA.kv_heads, LLAMA.rotary_base, LLAMA.eps
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_torch_on_the_published_state(name):
    model, table, x, labels = MODELS[name]
    _, params, state = made(name, np.float64)
    run = jax.jit(hg.value_and_grad(model, hg.softmax_cross_entropy(), has_aux=True))
    (_, logits), grads = run(params, x, labels)
    state = {key: torch.tensor(array, requires_grad=True) for key, array in state.items()}
    expected = THEIRS[name](state, torch.tensor(x))
    cost = torch.nn.functional.cross_entropy(expected.flatten(0, -2), torch.tensor(labels).flatten(), reduction="sum")
    (cost / len(x)).backward()
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    ours = to_state(table, grads)
    for key, array in state.items():
        # Two biases that are added have one gradient; ours is in the first.
        gradient, theirs = ours[key.replace("bias_hh", "bias_ih")], array.grad.numpy()
        np.testing.assert_allclose(gradient, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max(), err_msg=key)


def test_a_state_dict_of_torch():
    """bfloat16, views with gaps and parameters that require a gradient; what is read doesn't change with it."""
    like, params, state = made("llama")
    tensors = {key: torch.tensor(np.repeat(array, 2, axis=-1))[..., ::2] for key, array in state.items()}
    tensors["model.norm.weight"] = torch.nn.Parameter(tensors["model.norm.weight"])
    table = MODELS["llama"][1]
    found = from_state(table, like, tensors)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.add_(1)
    check_same(found, params)
    found = from_state(table, like, {key: torch.tensor(array).bfloat16() for key, array in state.items()})
    check_same(found, jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(p.dtype), params))
    said = r"model\.norm\.weight must have a floating-point dtype, got torch\.int8 \(8,\)"
    with pytest.raises(hg.InputError, match=said):
        from_state(table, like, tensors | {"model.norm.weight": torch.ones(8, dtype=torch.int8)})
