"""The kernel of the tiled backend for CPUs."""
