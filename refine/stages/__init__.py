"""What is done between building and fitting."""
