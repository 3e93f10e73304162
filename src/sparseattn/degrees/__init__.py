"""Degrees that are learned or calibrated: a sparsity goes in, the best places to spend it come out.

The method is described in `docs/degrees.md`.
"""
