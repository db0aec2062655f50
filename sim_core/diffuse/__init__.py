"""Diffuse scattering of a crystal whose atoms move together."""
