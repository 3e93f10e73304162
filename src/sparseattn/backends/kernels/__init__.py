"""What is below the backends: kernels, and the lists of keys that they walk."""
