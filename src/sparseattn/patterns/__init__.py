"""Patterns: one file each, discovered. See `sparseattn.pattern` for what a pattern is."""
