"""Solves, determinants, norms, decompositions and functions of matrices.

Every rule takes a matrix (m, n), or a batch of them, (..., m, n): whatever is in front of the last two axes is a batch
axis. A right-hand side has a row for each of the matrix's, (..., m, k), or is a vector, (..., m). Rules whose matrices
must be square, or that must match a right-hand side, raise InputError otherwise. Values that no trace can check, as a
singular matrix in a solve, give infinities or NaN, as in LAPACK and jax.numpy.

Numbers are real or complex. A complex cotangent is JAX's: dX such that the loss changes by Re Σ dX_ij Ẋ_ij, so that
what has no conjugate in it, as a solve, has one formula for both. Docstrings write Xᵀ where complex numbers take Xᴴ and
conjugate dY and dX; derivations say which those are (docs/derivations/linear_algebra/solve.md).

LAPACK has neither bfloat16 nor float16: such matrices are computed in float32, residuals stay in float32, and results
are rounded once.
"""
