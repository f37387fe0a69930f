"""Losses, one number for each example, and their curvature."""
