"""Normalization by the statistics of a row, a group, an example's feature or the batch."""
