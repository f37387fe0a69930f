"""Activations, element by element and along rows; gated units; dropout."""
