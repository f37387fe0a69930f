"""What several tests of the checker check."""


def linear(X, W, b):
    return X @ W + b[None], (X, W)


def linear_backward(residuals, dY):
    X, W = residuals
    return dY @ W.T, X.T @ dY, dY.sum(0)


def failing(report):
    return sorted(row.leaf for row in report.rows if row.status == "FAIL")
