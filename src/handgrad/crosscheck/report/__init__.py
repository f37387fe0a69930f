"""What a check says, and how it is shown."""
