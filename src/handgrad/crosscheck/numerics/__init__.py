"""Finite differences and their extrapolation: NumPy alone."""
