"""Layers of the activations."""
