"""Parts of experiments/checker_shootout.py."""
