import jax
import numpy as np
from helpers import assert_refused, drawn

import handgrad as hg


def test_layers_and_widths():
    model, x = hg.mlp((4, 8, 3), hg.tanh()), np.ones((2, 4))
    params = drawn(model, x)
    assert [p.W.shape for p in params if p] == [(4, 8), (8, 3)]
    (W, b), _, (V, c) = jax.tree.map(np.asarray, params)
    np.testing.assert_allclose(jax.jit(model.forward)(params, x)[0], np.tanh(x @ W + b) @ V + c, rtol=1e-13)


def test_an_input_of_another_width():
    """Too few sizes are tests/test_bad_input.py's."""
    sentence = r"in layer 0: linear: x must have 4 features, got float64 \(2, 5\)"
    assert_refused({sentence: lambda: hg.mlp((4, 3), hg.relu()).init(jax.random.key(0), np.ones((2, 5)))})
