"""An orientation from nothing."""
