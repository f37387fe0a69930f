"""A rule against PyTorch: value and all gradients, in float64."""

import jax
import numpy as np
from in_torch import torch
from rules.linear_algebra.matrices import passes, run

from handgrad import rules

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal((2, 3, 3))
REGULAR = NORMAL + 3 * np.eye(3)
POSITIVE = NORMAL @ NORMAL.swapaxes(-1, -2) + np.eye(3)
SKEWED = POSITIVE + NORMAL - NORMAL.swapaxes(-1, -2)  # the same when read as its symmetric part
TALL, WIDE = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 2, 4))
B = RNG.standard_normal((2, 3, 2))


def check_in_torch(*rows):
    """Rows of (op, options, the same in PyTorch, arguments), in one program.

    A vector's sign is arbitrary: where PyTorch's is the other, its cotangent changes sign too.
    """

    def cotangent(op, options, _, arguments):
        Y, _ = jax.eval_shape(lambda *a: getattr(rules, op).forward(*a, **options), *arguments)
        return jax.tree.map(lambda y: RNG.standard_normal(y.shape), Y)

    dYs = [cotangent(*row) for row in rows]
    arguments = [row[3] for row in rows]
    found = run(
        lambda dYs, arguments: [
            passes(op, dY, *a, **options) for (op, options, *_), dY, a in zip(rows, dYs, arguments, strict=True)
        ],
        dYs,
        arguments,
    )
    for (op, options, function, given), dY, (Y, *cotangents) in zip(rows, dYs, found, strict=True):
        leaves = [torch.tensor(a, requires_grad=True) for a in given]
        theirs = function(*leaves)
        total = 0
        for mine, expected, dy in zip(
            jax.tree.leaves(Y), theirs if isinstance(theirs, tuple) else [theirs], jax.tree.leaves(dY), strict=True
        ):
            signs = 1
            if op in ("svd", "qr", "symmetric_eigen"):
                signs = np.sign(mine * expected.detach().numpy()) + (mine == 0)
            _assert_close(mine, signs * expected.detach().numpy(), (op, options))
            total = total + (torch.tensor(signs * dy) * expected).sum()
        total.backward()
        for mine, leaf in zip(cotangents, leaves, strict=True):
            _assert_close(mine, leaf.grad.numpy(), (op, options))


def _assert_close(found, expected, row):
    assert found.shape == expected.shape, row
    assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max(), row
