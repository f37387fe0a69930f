"""Composition: layers made of layers."""
