"""PyTorch as a third party: tables that are read, added, and tied to the head."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same
from in_torch import F, torch

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)
TABLE, POSITIONS = RNG.standard_normal((7, 4)), RNG.standard_normal((6, 4))
IDS = np.array([[0, 6, 6, 2, 6], [3, 3, 3, 3, 0], [5, 1, 0, 2, 4]])
DY = RNG.standard_normal((3, 5, 4))


def leaf(array):
    return torch.tensor(np.asarray(array), requires_grad=True)


def test_embedding():
    """Ids that repeat within an example and across."""
    Y, residuals = rules.embedding_forward(jnp.asarray(IDS), jnp.asarray(TABLE))
    _, dtable = rules.embedding_backward(residuals, jnp.asarray(DY))
    table = leaf(TABLE)
    expected = F.embedding(torch.tensor(IDS), table)
    expected.backward(torch.tensor(DY))
    assert_same((Y, dtable.sum()), (expected.detach().numpy(), table.grad.numpy()))


def test_per_example_norms():
    """torch's gradient of each example alone."""
    _, residuals = rules.embedding_forward(jnp.asarray(IDS), jnp.asarray(TABLE))
    _, dtable = rules.embedding_backward(residuals, jnp.asarray(DY))
    squares = []
    for ids, dy in zip(IDS, DY, strict=True):
        table = leaf(TABLE)
        F.embedding(torch.tensor(ids), table).backward(torch.tensor(dy))
        squares.append(float((table.grad**2).sum()))
    assert_same(dtable.sq_norms(), np.array(squares))


def test_position_embedding():
    X = RNG.standard_normal((3, 5, 4))
    Y, residuals = rules.position_embedding_forward(jnp.asarray(X), jnp.asarray(POSITIONS))
    dX, dtable = rules.position_embedding_backward(residuals, jnp.asarray(DY))
    x, table = leaf(X), leaf(POSITIONS)
    expected = x + F.embedding(torch.arange(5), table)
    expected.backward(torch.tensor(DY))
    assert_same((Y, dX, dtable.sum()), (expected.detach().numpy(), x.grad.numpy(), table.grad.numpy()))


def test_tied_head():
    X, dY = RNG.standard_normal((3, 5, 4)), RNG.standard_normal((3, 5, 7))
    Y, residuals = rules.tied_head_forward(jnp.asarray(X), jnp.asarray(TABLE))
    dX, dtable = rules.tied_head_backward(residuals, jnp.asarray(dY))
    x, table = leaf(X), leaf(TABLE)
    expected = F.linear(x, table)
    expected.backward(torch.tensor(dY))
    assert_same((Y, dX, dtable.sum()), (expected.detach().numpy(), x.grad.numpy(), table.grad.numpy()))


class LanguageModel(torch.nn.Module):
    """nn.Embedding whose weight is nn.Linear's too, learned positions, and one hidden layer."""

    def __init__(self):
        super().__init__()
        self.read, self.positions = torch.nn.Embedding(7, 4), torch.nn.Embedding(6, 4)
        self.hidden = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.read.weight

    def forward(self, ids):
        x = self.read(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(x + torch.tanh(self.hidden(x)))


def test_a_language_model_with_tied_weights():
    model = layers.tied_embedding(
        7, 4, hg.chain(layers.position_embedding(6), hg.residual(hg.chain(hg.linear(4), hg.tanh())))
    )
    theirs = LanguageModel().double()
    labels = RNG.integers(0, 7, IDS.shape)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(IDS)))
    params = jax.tree.map(lambda p: jnp.asarray(RNG.standard_normal(p.shape)), shapes)
    positions, (hidden, _) = params["body"]
    with torch.no_grad():
        theirs.read.weight.copy_(torch.tensor(np.asarray(params["embedding"].table)))
        theirs.positions.weight.copy_(torch.tensor(np.asarray(positions.table)))
        theirs.hidden.weight.copy_(torch.tensor(np.asarray(hidden.W.T)))
        theirs.hidden.bias.copy_(torch.tensor(np.asarray(hidden.b)))
    loss = (
        F.cross_entropy(theirs(torch.tensor(IDS)).reshape(-1, 7), torch.tensor(labels).reshape(-1), reduction="sum") / 3
    )
    loss.backward()
    value, grads = hg.value_and_grad(model, hg.softmax_cross_entropy())(params, jnp.asarray(IDS), jnp.asarray(labels))
    positions, (hidden, _) = grads["body"]
    found = value, grads["embedding"].table, positions.table, hidden.W.T, hidden.b
    leaves = theirs.read.weight, theirs.positions.weight, theirs.hidden.weight, theirs.hidden.bias
    assert_same(found, (loss.detach().numpy(), *(weight.grad.numpy() for weight in leaves)))
