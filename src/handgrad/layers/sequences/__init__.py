"""Embeddings, recurrent layers, and what works on sequences."""
