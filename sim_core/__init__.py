"""Differentiable X-ray diffraction: tensors in, tensors out."""

from .experiment import (
    AmplitudeGrid,
    Beam,
    Crystal,
    Experiment,
    Panel,
    Scan,
    Sensor,
    Structure,
    StructureFactors,
)

__all__ = [
    "AmplitudeGrid",
    "Beam",
    "Crystal",
    "Experiment",
    "Panel",
    "Scan",
    "Sensor",
    "Structure",
    "StructureFactors",
]
