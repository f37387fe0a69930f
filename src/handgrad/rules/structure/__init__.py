"""What networks are put together with: routing to experts, reversible blocks."""
