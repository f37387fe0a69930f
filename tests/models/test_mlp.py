import jax
import numpy as np
import pytest

import handgrad as hg


def test_layers_and_widths():
    model = hg.mlp((4, 8, 3), hg.tanh())
    x, rng = np.ones((2, 4)), np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), jax.eval_shape(model.init, jax.random.key(0), x))
    assert [p.W.shape for p in params if p] == [(4, 8), (8, 3)]
    by_formula = np.tanh(x @ params[0].W + params[0].b) @ params[2].W + params[2].b
    np.testing.assert_allclose(jax.jit(model.forward)(params, x)[0], by_formula, rtol=1e-13)


def test_bad_input():
    with pytest.raises(hg.InputError, match="mlp: sizes must name the input and the output"):
        hg.mlp((4,), hg.relu())
    with pytest.raises(hg.InputError, match="in layer 0: linear: x must have 4 features, got float64 \\(2, 5\\)"):
        hg.mlp((4, 3), hg.relu()).init(jax.random.key(0), np.ones((2, 5)))
