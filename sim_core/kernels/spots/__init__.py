"""The sum over Gaussians, the hot loop of the closed form."""
