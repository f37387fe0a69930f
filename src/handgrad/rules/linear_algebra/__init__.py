"""Solves, determinants, norms, decompositions and functions of matrices."""
