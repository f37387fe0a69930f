"""Stochastic gradient descent of a network of sigmoids in plain NumPy, in matrix form over each mini-batch."""

import numpy as np


def sigmoid(Z):
    """1 / (1 + e^-Z)."""
    return 1 / (1 + np.exp(-Z))


def predict(params, X):
    """The last activations; params are [(W, b)]."""
    for W, b in params:
        X = sigmoid(X @ W + b)
    return X


def train_epoch(params, X, Y, batch, rate):
    """The mini-batches in the order of the rows; the cost is the cross-entropy, so that the last error is A - Y."""
    for start in range(0, len(X), batch):
        activations = [X[start : start + batch]]
        for W, b in params:
            activations.append(sigmoid(activations[-1] @ W + b))
        delta = activations.pop() - Y[start : start + batch]
        updated = []
        for (W, b), A in zip(reversed(params), reversed(activations), strict=True):
            updated.append((W - rate / batch * (A.T @ delta), b - rate / batch * delta.sum(axis=0)))
            delta = (delta @ W.T) * (A * (1 - A))
        params = updated[::-1]
    return params


def evaluate(params, X, Y):
    """The mean cost, and how many rows are right."""
    A = predict(params, X)
    cost = np.sum(np.nan_to_num(-Y * np.log(A) - (1 - Y) * np.log(1 - A))) / len(X)
    return cost, np.sum(A.argmax(axis=1) == Y.argmax(axis=1))
