"""Whether what runs keeps to a plan: seen in its outputs, wherever it runs."""
