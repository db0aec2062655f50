"""Objective, optimizers, uncertainties and the LightningModule."""
