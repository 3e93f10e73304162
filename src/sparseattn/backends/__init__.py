"""Backends: one file each, discovered. See `sparseattn.backend` for what one is."""
