import jax
import jax.numpy as jnp
import pytest

import handgrad as hg


def test_layers_and_widths():
    model = hg.mlp((4, 8, 3), hg.tanh())
    x = jnp.ones((2, 4))
    params = model.init(jax.random.key(0), x)
    assert [p.W.shape for p in params if p] == [(4, 8), (8, 3)]
    by_formula = jnp.tanh(x @ params[0].W + params[0].b[None]) @ params[2].W + params[2].b[None]
    assert jnp.allclose(model.forward(params, x)[0], by_formula, rtol=1e-14)


def test_bad_input():
    with pytest.raises(hg.InputError, match="mlp: sizes must name the input and the output"):
        hg.mlp((4,), hg.relu())
    with pytest.raises(hg.InputError, match="in layer 0: linear: x must have 4 features, got float64 \\(2, 5\\)"):
        hg.mlp((4, 3), hg.relu()).init(jax.random.key(0), jnp.ones((2, 5)))
