"""Layers of the linear algebra rules."""
