"""An LSTM language model in PyTorch, as its example of one; eager: torch.compile leaves nn.LSTM as it is."""

from baselines.torch_ways import tensors, torch, value_and_grad

F = torch.nn.functional


def ways(*, vocabulary, width, depth, **sizes):
    """Value and gradient."""
    lstm = torch.nn.LSTM(width, width, depth, batch_first=True)

    def loss(params, ids, following):
        zeros = torch.zeros(4 * width)
        named = {name: a for name, a in params.items() if name.endswith(tuple(f"_l{i}" for i in range(depth)))}
        named |= {f"bias_hh_l{i}": zeros for i in range(depth)}
        x, _ = torch.func.functional_call(lstm, named, (F.embedding(ids, params["table"]),))
        logits = F.linear(x, params["weight"], params["bias"])
        losses = F.cross_entropy(logits.reshape(-1, vocabulary), following.reshape(-1), reduction="sum")
        return losses / len(ids)

    return {"torch": value_and_grad(loss)}


def parameters(theirs):
    """PyTorch's names and layouts."""
    head = theirs["head"]
    params = {"table": theirs["embedding"].table, "weight": head.W.T, "bias": head.b}
    for i, layer in enumerate(theirs["lstm"]):
        params |= {f"weight_ih_l{i}": layer.W.T, f"weight_hh_l{i}": layer.U.T, f"bias_ih_l{i}": layer.b}
    return params


def arguments(theirs, ids, following):
    """As tensors."""
    return tensors(parameters(theirs), ids, following)
