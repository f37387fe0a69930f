"""PyTorch as a third party: tables that are read, added, and tied to the head."""

import jax
import numpy as np
from helpers import assert_same, drawn
from in_torch import F, assert_rules_agree, in_torch, torch

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)
TABLE, POSITIONS, X = (RNG.standard_normal(shape) for shape in ((7, 4), (6, 4), (3, 5, 4)))
IDS = np.array([[0, 6, 6, 2, 6], [3, 3, 3, 3, 0], [5, 1, 0, 2, 4]])
DY = RNG.standard_normal((3, 5, 4))


def test_tables():
    """Ids that repeat within an example and across."""
    assert_rules_agree(
        [
            (rules.embedding, F.embedding, (IDS, TABLE)),
            (rules.embedding.with_options(padding_idx=6), lambda i, t: F.embedding(i, t, padding_idx=6), (IDS, TABLE)),
            (rules.position_embedding, lambda x, table: x + F.embedding(torch.arange(5), table), (X, POSITIONS)),
            (rules.tied_head, F.linear, (X, TABLE)),
        ]
    )


def test_per_example_norms():
    """torch's gradient of each example alone."""
    _, dtable = rules.embedding_backward(rules.embedding_forward(IDS, TABLE)[1], DY)
    alone = [in_torch(F.embedding, ids, TABLE, dY=dy)[1][2] for ids, dy in zip(IDS, DY, strict=True)]
    assert_same(dtable.sq_norms(), np.array([(g**2).sum() for g in alone]))


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
    body = hg.chain(layers.position_embedding(6), hg.residual(hg.chain(hg.linear(4), hg.tanh())))
    model, theirs = layers.tied_embedding(7, 4, body), LanguageModel().double()
    labels = RNG.integers(0, 7, IDS.shape)

    def leaves(params):
        """In the order of torch's parameters: embedding, positions, hidden."""
        positions, (hidden, _) = params["body"]
        return params["embedding"].table, positions.table, hidden.W.T, hidden.b

    params = drawn(model, IDS)
    weights = [*theirs.parameters()]
    with torch.no_grad():
        for weight, own in zip(weights, leaves(params), strict=True):
            weight.copy_(torch.tensor(np.asarray(own)))
    logits = theirs(torch.tensor(IDS)).reshape(-1, 7)
    loss = F.cross_entropy(logits, torch.tensor(labels).reshape(-1), reduction="sum") / 3
    loss.backward()
    value, grads = jax.jit(hg.value_and_grad(model, hg.softmax_cross_entropy()))(params, IDS, labels)
    assert_same((value, *leaves(grads)), (loss.detach().numpy(), *(weight.grad.numpy() for weight in weights)))
