"""From checked settings to a refinement: the only room that knows every kind of data, term and stage."""

from refine.build.assemble import build

__all__ = ["build"]
