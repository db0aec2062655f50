"""Refinement of diffraction experiments."""
