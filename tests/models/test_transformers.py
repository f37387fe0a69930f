"""GPT-2 and Llama: every gradient against autodiff, the forms of a model against each other, PyTorch on one state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.models import (
    GPT2_STATE,
    LLAMA_STATE,
    Gpt2Config,
    LlamaConfig,
    from_state,
    gpt2,
    llama,
    load,
    save,
    to_state,
)

GPT2 = Gpt2Config(vocabulary=11, tokens=6, width=8, blocks=2, heads=2)
LLAMA = LlamaConfig(vocabulary=11, width=8, hidden=12, blocks=2, heads=4, kv_heads=2, rotary_base=100.0)
MODELS = {"gpt2": (gpt2, GPT2, GPT2_STATE), "llama": (llama, LLAMA, LLAMA_STATE)}
IDS = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
LABELS = jnp.array([[1, 4, 1, 5, 9], [2, 6, 5, 3, 10]])
LOSS = hg.softmax_cross_entropy()

both = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODELS])


@functools.cache
def made(name):
    """A model and parameters none of which is 0 or 1."""
    model, config, _ = MODELS[name]
    model = model(config)
    like = jax.eval_shape(model.init, jax.random.key(0), IDS)
    leaves, structure = jax.tree.flatten(like)
    rng = np.random.default_rng(0)
    return model, structure.unflatten([jnp.asarray(rng.standard_normal(leaf.shape) * 0.4) for leaf in leaves])


@functools.cache
def by_hand(name):
    model, params = made(name)
    return jax.jit(hg.value_and_grad(model, LOSS, has_aux=True))(params, IDS, LABELS)


def assert_close(one, other, rtol):
    """Leaf by leaf. A bias of all keys shifts each row of scores by one number, which softmax doesn't see: its gradient
    is 0, and is compared with the largest."""
    leaves = [np.asarray(b) for b in jax.tree.leaves(other)]
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), leaves, strict=True):
        is_zero = jax.tree_util.keystr(path, simple=True, separator=".").endswith("key.b")
        scale = max(np.abs(leaf).max() for leaf in leaves) if is_zero else np.abs(b).max()
        assert np.abs(np.asarray(a) - b).max() <= rtol * scale, path


@both
def test_gradient_is_autodiffs(name):
    model, params = made(name)
    assert_close(by_hand(name)[1], jax.jit(jax.grad(hg.objective(model, LOSS)))(params, IDS, LABELS), 1e-11)


@both
def test_init_in_float32(name):
    model, config, _ = MODELS[name]
    model = model(config)

    @jax.jit
    def started(key):
        params = model.init(key, IDS)
        return params, hg.objective(model, LOSS)(params, IDS, LABELS)

    params, loss = started(jax.random.key(0, impl="unsafe_rbg"))  # threefry takes longer to compile
    (_, logits), grads = jax.eval_shape(hg.value_and_grad(model, LOSS, has_aux=True), params, IDS, LABELS)
    assert logits.shape == (2, 5, 11)
    assert 0.5 < loss / 5 / np.log(11) < 2
    assert jax.tree.map(lambda p: (p.shape, p.dtype), params) == jax.tree.map(lambda g: (g.shape, g.dtype), grads)


@both
def test_tiled_attention_changes_nothing(name):
    model, config, _ = MODELS[name]
    tiled = model(type(config)(**{**config.__dict__, "tile": 2}))
    value, grads = jax.jit(hg.value_and_grad(tiled, LOSS, has_aux=True))(made(name)[1], IDS, LABELS)
    assert_close((value, grads), by_hand(name), 1e-12)


@pytest.mark.slow
@both
def test_checker_finds_nothing(name):
    model, params = made(name)
    report = hg.check_model(model, LOSS, params, IDS, LABELS)
    untold = {row.leaf for row in report.rows if row.status != "PASS"}
    # A gradient that is 0 everywhere can't be told from none at all, and the checker says so.
    assert untold == ({"params.body.blocks.attention.mix.key.b"} if name == "gpt2" else set()), report.reason
    assert report.verdict == ("INCONCLUSIVE" if untold else "PASS")


def test_the_tables_two_uses_are_shared():
    model, params = made("gpt2")
    _, factors = jax.eval_shape(hg.value_and_factors(model, LOSS), params, IDS, LABELS)
    (shared,) = [f for f in jax.tree.leaves(factors, is_leaf=hg.is_factor) if isinstance(f, hg.Shared)]
    assert [type(site).__name__ for site in shared.sites] == ["Scatter", "Outer"]
    assert jax.tree.leaves(factors, is_leaf=hg.is_factor).index(shared) >= 0


def test_causality():
    model, params = made("gpt2")
    changed = np.array(IDS)
    changed[:, 3] = 0
    forward = jax.jit(lambda ids: model.forward(params, ids)[0])
    one, other = np.asarray(forward(IDS)), np.asarray(forward(changed))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert np.abs(one[:, 3:] - other[:, 3:]).min() > 0


def test_too_long_a_sequence():
    model, params = made("gpt2")
    with pytest.raises(hg.InputError, match="7"):
        model.forward(params, jnp.zeros((1, 7), int))


@pytest.mark.third_party
@both
def test_torch_on_the_published_state(name):
    """Logits, and the gradient of every array of the state."""
    torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
    from models_in_torch import gpt2 as gpt2_in_torch, llama as llama_in_torch

    _, params = made(name)
    (_, logits), grads = by_hand(name)
    state = {key: torch.tensor(np.array(a), requires_grad=True) for key, a in to_state(MODELS[name][2], params).items()}
    ids, labels = torch.tensor(np.asarray(IDS)), torch.tensor(np.asarray(LABELS))
    if name == "gpt2":
        expected = gpt2_in_torch(state, ids, GPT2.blocks, GPT2.heads, GPT2.eps)
    else:
        expected = llama_in_torch(state, ids, 2, LLAMA.heads, LLAMA.kv_heads, LLAMA.rotary_base, LLAMA.eps)
    (torch.nn.functional.cross_entropy(expected.flatten(0, 1), labels.flatten(), reduction="sum") / 2).backward()
    assert_close(logits, expected.detach().numpy(), 1e-10)
    expected_grads = {key: tensor.grad.numpy() for key, tensor in state.items()}
    assert_close(to_state(MODELS[name][2], grads), expected_grads, 1e-10)


@both
def test_state_there_and_back(name, tmp_path):
    """Through a safetensors file, and every name of the table is used."""
    pytest.importorskip("safetensors")
    model, params = made(name)
    table = MODELS[name][2]
    like = jax.eval_shape(model.init, jax.random.key(0), IDS)
    params = jax.tree.map(lambda p, leaf: np.asarray(p, leaf.dtype), params, like)
    save(table, params, tmp_path / "model.safetensors")
    back = load(table, like, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, back, params)
    paths = {jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in jax.tree_util.tree_leaves_with_path(like)}
    assert paths == set(table)
    state = to_state(table, params)
    assert set(state) == {w.name.format(block=i) for w in table.values() for i in range(2)}


def test_states_that_do_not_fit():
    model, params = made("gpt2")
    like = jax.eval_shape(model.init, jax.random.key(0), IDS)
    state = to_state(GPT2_STATE, params)
    missing = {name: array for name, array in state.items() if name != "h.1.ln_1.bias"}
    with pytest.raises(
        hg.InputError, match=r"got no entry for h\.1\.ln_1\.bias \(body\.blocks\.attention\.norm\.beta\)$"
    ):
        from_state(GPT2_STATE, like, missing)
    wrong = state | {"h.0.mlp.c_fc.weight": np.zeros((32, 8))}
    said = r"h\.0\.mlp\.c_fc\.weight must have shape \(8, 32\), got float64 \(32, 8\)"
    with pytest.raises(hg.InputError, match=said):
        from_state(GPT2_STATE, like, wrong)
    with pytest.raises(hg.InputError, match="the table must have every parameter, got none for"):
        from_state({}, like, state)


@pytest.mark.slow
def test_the_smallest_gpt2_published():
    """124 million parameters: one gradient in float32, no further than three times autodiff's error from float64's."""
    model = gpt2()
    ids = jax.random.randint(jax.random.key(1), (1, 64), 0, 50257)
    labels = jnp.roll(ids, -1, axis=1)
    params = model.init(jax.random.key(0), ids.astype("int32"))
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    assert sum(p.size for p in jax.tree.leaves(params)) == 124_439_808
    autodiff = jax.jit(jax.grad(hg.objective(model, LOSS)))
    mine = jax.jit(hg.grad(model, LOSS))(params, ids, labels)
    theirs = autodiff(params, ids, labels)
    truth = autodiff(jax.tree.map(lambda p: p.astype(jnp.float64), params), ids, labels)
    for (path, a), b, t in zip(
        jax.tree_util.tree_leaves_with_path(mine), jax.tree.leaves(theirs), jax.tree.leaves(truth), strict=True
    ):
        error, of_autodiff = (float(jnp.linalg.norm((g - t).ravel()) / jnp.linalg.norm(t.ravel())) for g in (a, b))
        assert error <= 3 * of_autodiff, (path, error, of_autodiff)
