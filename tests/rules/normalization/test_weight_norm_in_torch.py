"""PyTorch's weight norm, whose outputs are the first axis, around its linear and its convolution."""

import jax
import numpy as np
from in_torch import assert_close, in_torch, normal, torch

import handgrad as hg
from handgrad import layers

V, K, G, X, IMAGES = normal(4, 3), normal(2, 3, 2, 3), normal(3), normal(5, 4), normal(5, 4, 5, 2)


def test_layers():
    """torch.nn.utils.parametrizations.weight_norm of a linear and a convolution: gradients of both parameters."""
    weight_norm = torch.nn.utils.parametrizations.weight_norm
    linear = weight_norm(torch.nn.Linear(4, 3, bias=False)).double()
    convolution = weight_norm(torch.nn.Conv2d(2, 3, (2, 3), bias=False)).double()
    for module, weight in ((linear, V), (convolution, np.moveaxis(K, (-2, -1), (1, 0)))):
        of = module.parametrizations.weight
        with torch.no_grad():
            of.original1.copy_(torch.tensor(np.moveaxis(weight, -1, 0) if module is linear else weight))
            of.original0.copy_(torch.tensor(G).reshape(of.original0.shape))
    expected = []
    for module, x in ((linear, X), (convolution, np.moveaxis(IMAGES, -1, 1))):
        dY, (y, dx) = in_torch(module, x)
        g, v = (
            p.grad.numpy() for p in (module.parametrizations.weight.original0, module.parametrizations.weight.original1)
        )
        expected.append((dY, y, dx, g.ravel(), v))
    ours = (
        (layers.weight_norm(hg.linear(3, bias=False)), layers.WeightNormParams(G, layers.LinearParams(V)), X),
        (
            layers.weight_norm(hg.convolution(3, (2, 3), padding="VALID", bias=False)),
            layers.WeightNormParams(G, layers.ConvolutionParams(K)),
            IMAGES,
        ),
    )

    @jax.jit
    def run(dYs):
        found = []
        for (layer, params, x), dY in zip(ours, dYs, strict=True):
            y, residuals = layer.forward(params, x)
            found.append((y, *layer.backward(residuals, dY)))
        return hg.materialize(found)

    (of_linear, of_convolution) = expected
    images = [np.moveaxis(a, 1, -1) for a in of_convolution[:3]]
    (y, dx, dparams), (Y, dX, dP) = run([of_linear[0], images[0]])
    assert_close((y, dx, dparams.g, dparams.inside.W.T), of_linear[1:])
    assert_close((Y, dX, dP.g, np.moveaxis(dP.inside.K, (-2, -1), (1, 0))), (*images[1:], *of_convolution[3:]))
