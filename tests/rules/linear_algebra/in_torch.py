"""A rule against PyTorch: value and all gradients, in float64."""

import jax
import numpy as np
from helpers import together
from in_torch import assert_close, torch

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
    each = [getattr(rules, op).with_options(**options) for op, options, *_ in rows]
    calls = []
    for rule, (*_, arguments) in zip(each, rows, strict=True):
        Y = jax.eval_shape(lambda *a, rule=rule: rule.forward(*a)[0], *arguments)
        calls.append((rule, jax.tree.map(lambda y: RNG.standard_normal(y.shape), Y), arguments))
    found = jax.tree.map(np.asarray, together(calls))
    for (op, _, function, given), (_, dY, _), (Y, cotangents) in zip(rows, calls, found, strict=True):
        leaves = [torch.tensor(a, requires_grad=True) for a in given]
        theirs = function(*leaves)
        theirs = theirs if isinstance(theirs, tuple) else (theirs,)
        values = [value.detach().numpy() for value in theirs]
        mine, dYs = jax.tree.leaves(Y), jax.tree.leaves(dY)
        signed = op in ("svd", "qr", "symmetric_eigen")
        signs = [np.sign(one * two) + (one == 0) if signed else 1 for one, two in zip(mine, values, strict=True)]
        sum((torch.tensor(s * dy) * Y).sum() for s, dy, Y in zip(signs, dYs, theirs, strict=True)).backward()
        expected = [s * value for s, value in zip(signs, values, strict=True)], [leaf.grad for leaf in leaves]
        assert_close((mine, cotangents), expected, op, rtol=1e-10)
