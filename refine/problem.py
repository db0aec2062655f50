"""``build_problem``, the name that :func:`refine.build.build` had before refinements were made of frames and terms."""

from refine.build import build as build_problem

__all__ = ["build_problem"]
