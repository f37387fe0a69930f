"""Linear maps, tensor contractions, low-rank adapters."""
