"""Summands of the expected intensity."""
