"""What the references say about a gradient, and how far rounding alone may lead."""
