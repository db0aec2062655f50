"""What is shown and left."""
