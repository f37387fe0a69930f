"""Gradients of PyTorch functions under the checker."""

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import check_rule
from handgrad.crosscheck.torch import from_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
X, W = (np.random.default_rng(seed).standard_normal(shape) for seed, shape in enumerate([(4, 3), (3, 2)]))


class Softmax(torch.autograd.Function):
    """Right where `mean` is False."""

    mean = False

    @staticmethod
    def forward(ctx, x):
        p = torch.softmax(x, -1)
        ctx.save_for_backward(p)
        return p

    @classmethod
    def backward(cls, ctx, dp):
        (p,) = ctx.saved_tensors
        reduce = torch.mean if cls.mean else torch.sum
        return p * (dp - reduce(p * dp, -1, keepdim=True))


class Wrong(Softmax):
    mean = True


@pytest.mark.parametrize("reference", [None, lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)])
def test_a_function_with_its_own_gradient(reference):
    assert check_rule(from_torch(Softmax.apply), X, reference=reference).ok
    report = check_rule(from_torch(Wrong.apply), X, reference=reference)
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert reference or any("finite differences are the only reference" in note for note in report.notes)


def test_pytorchs_own_gradients():
    both = check_rule(from_torch(lambda x, w, n: (torch.tanh(x @ w), (x * x).sum(0) * n)), X, W, np.int64(3))
    assert both.ok, both
    assert check_rule(from_torch(lambda z: z * z.conj() * z), X[0] + 1j * X[1]).ok
    assert check_rule(from_torch(torch.erf), X.astype(np.float32)).ok
