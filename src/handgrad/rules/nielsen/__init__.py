"""Nielsen's four equations of backpropagation."""
