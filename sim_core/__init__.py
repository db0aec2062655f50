"""Differentiable X-ray diffraction: tensors in, tensors out."""

from .experiment import Beam, Crystal, Experiment, Panel, Scan, Sensor, StructureFactors

__all__ = ["Beam", "Crystal", "Experiment", "Panel", "Scan", "Sensor", "StructureFactors"]
