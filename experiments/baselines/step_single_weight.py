"""The question's step, w − η ∂C/∂w with C = (x w − y)², as a bare function."""

RATE = 1e-3


def step(state, x, y):
    """(state, C)."""
    error = x @ state.params.W - y
    params = state.params._replace(W=state.params.W - 2 * RATE * x.T @ error)
    return state._replace(params=params, step=state.step + 1), (error * error)[0, 0]


def ways(**sizes):
    """One way."""
    return {"a bare function": step}
