"""Convolution and pooling layers."""
