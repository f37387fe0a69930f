"""The errors that gradients have: made on purpose, and recognized."""
