"""One trial: what it is, doing it, and counting what its plan allows."""
