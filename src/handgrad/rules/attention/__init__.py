"""Attention and rotary position embeddings."""
