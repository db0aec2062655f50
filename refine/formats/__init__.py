"""Files in and out: a path becomes checked arrays and back."""
