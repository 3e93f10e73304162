"""Distributions of radii that train with the model under a budget."""
