"""Solves, determinants, norms, decompositions and functions of matrices.

Every rule takes a batch of matrices, (batch, ..., m, n), of floating point; whatever is in front of the last two axes
is a batch axis. Rules whose matrices must be square, or that must match a right-hand side, raise InputError otherwise.
Values that no trace can check, as a singular matrix in a solve, give infinities or NaN, as in LAPACK and jax.numpy.

LAPACK has neither bfloat16 nor float16: such matrices are computed in float32, residuals stay in float32, and results
are rounded once.
"""
