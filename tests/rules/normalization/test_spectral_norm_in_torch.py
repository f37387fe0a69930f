"""PyTorch's spectral norm, whose outputs are the first axis, around its linear and its convolution: a step of power
iteration, and the gradient."""

import jax
import numpy as np
from in_torch import assert_close, in_torch, normal, torch

import handgrad as hg
from handgrad import layers

V, K, X, IMAGES = normal(4, 3), normal(2, 3, 2, 3), normal(5, 4), normal(5, 4, 5, 2)


def test_layers():
    spectral_norm = torch.nn.utils.parametrizations.spectral_norm
    of_linear, of_images = (
        torch.nn.Linear(4, 3, bias=False).double(),
        torch.nn.Conv2d(2, 3, (2, 3), bias=False).double(),
    )
    outputs_first = V.T, np.moveaxis(K, (-2, -1), (1, 0))
    with torch.no_grad():
        for module, weight in zip((of_linear, of_images), outputs_first, strict=True):
            module.weight.copy_(torch.tensor(weight))
    expected, starts = [], []
    for module, x in ((of_linear, X), (of_images, np.moveaxis(IMAGES, -1, 1))):
        module = spectral_norm(module)
        starts.append(module.parametrizations.weight[0]._v.numpy().copy())
        dY, (y, dx) = in_torch(module, x)  # in training: one step
        expected.append((dY, y, dx, module.parametrizations.weight.original.grad.numpy()))
    (dy, *linear), (dY, *images) = expected
    start = starts[1].reshape(2, 2, 3)  # of (n_in, *size)
    ours = (
        (hg.linear(3, bias=False), layers.LinearParams(V), starts[0], X, dy),
        (
            hg.convolution(3, (2, 3), padding="VALID", bias=False),
            layers.ConvolutionParams(K),
            np.moveaxis(start, 0, -1).ravel(),
            IMAGES,
            np.moveaxis(dY, 1, -1),
        ),
    )

    @jax.jit
    def run(starts):
        found = []
        for (inside, params, _, x, dy), a in zip(ours, starts, strict=True):
            layer = hg.spectral_norm(inside)
            y, residuals = layer.forward(layers.SpectralNormParams(a, params), x)
            found.append((y, *layer.backward(residuals, dy)))
        return hg.materialize(found)

    (y, dx, dparams), (Y, dX, dP) = run([row[2] for row in ours])
    assert_close((y, dx, dparams.inside.W.T), linear)
    moved = [np.moveaxis(a, -1, 1) for a in (Y, dX)]
    assert_close((*moved, np.moveaxis(dP.inside.K, (-2, -1), (1, 0))), images)
    assert not np.asarray(dP.a).any()
