"""Layers of the linear rules."""
