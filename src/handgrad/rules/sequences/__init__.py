"""Embeddings and recurrent networks."""
