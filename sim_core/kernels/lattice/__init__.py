"""The sum over orientations, the hot loop of the sampled simulator."""
