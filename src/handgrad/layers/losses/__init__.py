"""The losses that a network is trained with."""
