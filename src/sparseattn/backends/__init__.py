"""Backends: one file each, discovered. See `base` for what a backend is."""
