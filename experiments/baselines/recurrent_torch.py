"""PyTorch's own recurrent layers, eager: torch.compile leaves them as they are."""

from baselines.torch_ways import tensors, torch, value_and_grad

LAYERS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def ways(*, cell, width, **sizes):
    """Value and gradient."""
    layer = LAYERS[cell](width, width, batch_first=True)

    def loss(params, x, target):
        zeros = torch.zeros_like(params["bias_ih_l0"])
        other = torch.cat([zeros[width:], params["bias_hh_n"]]) if cell == "gru" else zeros
        named = {name: a for name, a in params.items() if name != "bias_hh_n"} | {"bias_hh_l0": other}
        y, _ = torch.func.functional_call(layer, named, (x,))
        return ((y - target) ** 2).sum((1, 2)).mean()

    return {"torch": value_and_grad(loss)}


def parameters(theirs):
    """PyTorch's names and layouts: weights are transposed, the second bias is zero but for a gru's n."""
    params = {"weight_ih_l0": theirs.W.T, "weight_hh_l0": theirs.U.T, "bias_ih_l0": theirs.b}
    return params | ({"bias_hh_n": theirs.c} if hasattr(theirs, "c") else {})


def arguments(theirs, x, target):
    """As tensors."""
    return tensors(parameters(theirs), x, target)
