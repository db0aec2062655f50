"""What may move, and how far."""
