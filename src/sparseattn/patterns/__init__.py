"""Patterns: one file each, discovered. See `base` for what a pattern is, `spec` for the strings."""
