"""The factors' product is X, so the cotangent of that product is X's own."""

from rules.linear_algebra.matrices import SPD, C, X, check_composition, symmetric


def test_a_decomposition_composes_to_its_matrix():
    check_composition("qr", lambda Q, R: Q @ R, X[:1], C)
    check_composition("cholesky", lambda L: L @ L.T, SPD[:1], symmetric(C))
