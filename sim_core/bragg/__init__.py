"""Bragg spots."""
