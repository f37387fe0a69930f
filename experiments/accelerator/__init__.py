"""The parts of on_accelerator.py."""
